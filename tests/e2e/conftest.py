"""Fixtures of the tests beside."""

from fixtures import agents, broker, kafka, river, running_broker, tiny_model

__all__ = ["agents", "broker", "kafka", "river", "running_broker", "tiny_model"]
