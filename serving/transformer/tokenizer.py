"""What a client needs to pack prompts itself: the tokenizer and the prompt format, as `/v1/tokenizer` sends them."""

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from fastapi import Request, Response

from serving.transformer.config import Prepared

HEADERS = {"cache-control": "no-cache", "vary": "accept-encoding"}
"""A client may keep the answer, and asks with its digest whether it still holds."""


@dataclass(frozen=True)
class Tokenizer:
    body: bytes
    """JSON: {"tokenizer": as tokenizer.json, "prompt_format": as prompt_format.json}."""
    size: int
    """Token ids are below this."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the body: two servers with the same one take the same prompts."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def compressed(self) -> bytes:
        """The body as gzip has it, made when a client first asks: a tenth of a second for 50,000 tokens."""
        return gzip.compress(self.body, 6, mtime=0)

    def response(self, request: Request) -> Response:
        """Answer `request`: the body, or 304 when the client has it."""
        headers = {**HEADERS, "etag": f'"{self.digest}"'}
        if self.digest in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.body, media_type="application/json", headers=headers)
        headers["content-encoding"] = "gzip"
        return Response(self.compressed, media_type="application/json", headers=headers)


def tokenizer_of(prepared: Prepared) -> Tokenizer:
    """Return what a client is told of a model's tokenizer."""
    value = {"tokenizer": prepared.encoder.json, "prompt_format": prepared.fmt.to_json()}
    body = json.dumps(value, separators=(",", ":")).encode()
    return Tokenizer(body, prepared.encoder.vocab_size)
