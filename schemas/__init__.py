"""Contracts of the river: events, topics, headers, limits and the one error tree."""
