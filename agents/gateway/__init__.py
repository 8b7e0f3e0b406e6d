"""The HTTP door: OpenAI's API, documents and feedback, over the topics."""
