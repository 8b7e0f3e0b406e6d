"""Quality on real data, measured through the topics."""
