"""Feedback with its prompt and its answer, under a pseudonym, once."""
