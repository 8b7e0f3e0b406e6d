"""Devices on one machine, as processes and simulated, for evaluations and benchmarks."""
