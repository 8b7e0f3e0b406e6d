"""What operators see, and what follows. Read `agent.py`, then `drifts.py` and `rules.py`."""
