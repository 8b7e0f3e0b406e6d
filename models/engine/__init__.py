"""The language model engine: continuous batching over any Hugging Face causal model."""
