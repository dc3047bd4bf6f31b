"""Evaluation of models: generation, metrics over holes, benchmarks that execute code, intervals."""
