"""The command line, the local runtime and everything that operates the river."""
