"""From a prompt to its context: what it asks, which variant serves it, which index answers."""
