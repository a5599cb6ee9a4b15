"""Saves on a disk that fails, by processes that are killed: `python -m tests.faults`."""
