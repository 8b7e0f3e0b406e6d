"""Tuning while the river flows: candidates that learn in the shadow, from the same stream.

Read in this order: `models/learning/tuning.py` (who stays), `rules` (what may be judged by what),
`contestant`, `contest`, `stream`. No candidate is ever released: none of its rounds says so, and
nothing in here knows `model-updates`.
"""
