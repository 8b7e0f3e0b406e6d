"""What adapts beside the language model: which serving variant answers, and whom to believe."""
