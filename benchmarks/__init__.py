"""Benchmarks against peers; each prints one JSON object as its last line."""
