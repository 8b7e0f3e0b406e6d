"""OpenAI's shapes: requests, answers, streams."""
