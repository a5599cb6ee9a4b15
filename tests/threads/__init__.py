"""Loads from many threads, in forked processes, and cancelled at every point: `python -m tests.threads`."""
