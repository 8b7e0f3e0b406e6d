"""Tensors and plain dataclasses: engine, embedder, indexes. Knows nothing of Kafka."""
