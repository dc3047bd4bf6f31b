"""How good a model is: generation, metrics over holes, benchmarks that execute code, intervals."""
