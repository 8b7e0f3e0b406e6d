"""What operators see, and what follows. Read `agent.py`, then `drift/`."""
