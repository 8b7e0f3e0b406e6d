"""Which serving variant answers: a bandit, its policy, and what others would have earned."""
