"""What the agent that studies passages sets, opens and tells."""
