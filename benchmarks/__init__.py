"""Benchmarks against peers; each prints one JSON object as its last line."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before PyTorch is loaded, as in infill.cli
