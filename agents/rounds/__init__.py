"""Federated rounds at a SuperLink: asked for, run, told of, released."""
