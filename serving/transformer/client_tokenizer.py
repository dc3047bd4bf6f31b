"""The tokenizer and the prompt format as `/v1/tokenizer` sends them to clients that pack prompts themselves."""

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from fastapi import Request, Response

from serving.transformer.transformer_config import Prepared

HEADERS = {"cache-control": "no-cache", "vary": "accept-encoding"}
"""With `no-cache` a client may keep the answer but checks its digest before each use."""


@dataclass(frozen=True)
class Tokenizer:
    """A model's tokenizer and prompt format in the form in which clients receive them."""

    body: bytes
    """JSON: {"tokenizer": as tokenizer.json, "prompt_format": as prompt_format.json}."""
    size: int
    """Size of the vocabulary; token ids are below it."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the body; servers with the same digest accept the same prompts."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def compressed(self) -> bytes:
        """The body compressed with gzip when a client first asks, which takes 0.1 s for 50,000 tokens."""
        return gzip.compress(self.body, 6, mtime=0)

    def response(self, request: Request) -> Response:
        """Return the response to `request`: the body, or 304 when the client has it."""
        headers = {**HEADERS, "etag": f'"{self.digest}"'}
        if self.digest in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.body, media_type="application/json", headers=headers)
        headers["content-encoding"] = "gzip"
        return Response(self.compressed, media_type="application/json", headers=headers)


def tokenizer_of(prepared: Prepared) -> Tokenizer:
    """Return the tokenizer and prompt format of `prepared` for clients."""
    value = {"tokenizer": prepared.encoder.json, "prompt_format": prepared.fmt.to_json()}
    body = json.dumps(value, separators=(",", ":")).encode()
    return Tokenizer(body, prepared.encoder.vocab_size)
