"""A transport that sends the head of a response with the beginning of its body.

uvicorn writes the two one after the other. On its own, a head wakes the client, which reads it on the processor that
would write the body, and takes a packet of its own.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD: Final = b"HTTP/1.1 "


class JoinedWrites:
    """An asyncio transport whose `write` keeps the head of a response until the next one, or the loop's next turn."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send the data, after the head if one is kept, or keep it if it is one."""
        if not self._head and data.startswith(HEAD):
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            data, self._head = self._head + data, b""
            self._transport.write(data)

    def close(self) -> None:
        """Send what is kept, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            self.write(b"")


class JoiningProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with joined writes."""

    def connection_made(self, transport: Any) -> None:
        """Take a connection."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]
