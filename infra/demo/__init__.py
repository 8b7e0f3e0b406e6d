"""The demonstration: the whole river, on documents that every machine with Python has."""
