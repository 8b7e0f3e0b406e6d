"""Producing, consuming and the SDK client, over confluent-kafka."""
