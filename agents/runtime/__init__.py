"""What every agent's process needs: a worker, its readiness, its metrics, dead letters."""
