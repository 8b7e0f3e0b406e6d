"""A Flink on this machine for the windowed statistics, in an environment of its own."""
