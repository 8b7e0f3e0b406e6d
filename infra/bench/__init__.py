"""Benchmarks: each compares two ways of doing the same thing, side by side in one run."""
