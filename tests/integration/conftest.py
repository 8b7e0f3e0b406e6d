"""Fixtures of the tests beside."""

from fixtures import agents, broker, gateway, kafka, river, running_broker, tiny_model

__all__ = ["agents", "broker", "gateway", "kafka", "river", "running_broker", "tiny_model"]
