"""The transformer: completion endpoints that pack the project's files into the prompt. It does not import torch."""
