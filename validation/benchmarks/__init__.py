"""Benchmarks: one claim per file, void unless the answers agree; run with ``make bench``."""
