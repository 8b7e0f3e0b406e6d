"""What is made of feedback: how good an answer was, whom to believe, what labels say."""
