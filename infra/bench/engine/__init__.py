"""The engine beside its peers, on the same weights and requests, each in a process of its own."""
