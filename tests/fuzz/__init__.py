"""Archives that nobody has written, by the million: `python -m tests.fuzz reader|program|flips`."""
