"""The engine over another server: what it asks, what it makes of the answers."""
