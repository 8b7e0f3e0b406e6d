"""Drifts found in windows, and what follows. Read `drifts.py`, `rules.py`, `acts.py`."""
