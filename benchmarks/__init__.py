"""Benchmarks: ``python -m benchmarks`` measures loading, calling and saving, ``benchmarks/capture.py`` captures."""
