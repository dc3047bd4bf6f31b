"""Development tools: generated documentation, compiled kernels, training data of the shipped adapter."""
