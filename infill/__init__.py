"""Infill: train an in-IDE code-completion model on your own code and serve it to editors."""

__version__ = "0.1.0"
