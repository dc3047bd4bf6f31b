"""Adapters for the protocols that clients already speak: each reads a request's body and writes the answer."""

from collections.abc import Mapping
from typing import Final

from serving.transformer.protocols.base import Protocol
from serving.transformer.protocols.llama_cpp import LlamaCpp
from serving.transformer.protocols.mistral import Mistral
from serving.transformer.protocols.ollama import Ollama
from serving.transformer.protocols.openai import OpenAI
from serving.transformer.protocols.tabby import Tabby

PROTOCOLS: Final[tuple[Protocol, ...]] = (Tabby(), OpenAI(), Mistral(), LlamaCpp(), Ollama())
"""All protocols; of those that share a path the first that claims the body reads it, and the last claims every body."""


def by_path() -> Mapping[str, tuple[Protocol, ...]]:
    """Return the protocols of each path."""
    paths = {path: None for protocol in PROTOCOLS for path in protocol.paths}
    return {path: tuple(each for each in PROTOCOLS if path in each.paths) for path in paths}
