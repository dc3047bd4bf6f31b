"""uvicorn's HTTP with fewer packets and fewer lines of log.

uvicorn writes the head of a response and its body one after the other. On its own, a head wakes the client, which reads
it on the processor that would write the body, and takes a packet of its own.
"""

import asyncio
import logging
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.transformer.protocols import by_path

HEAD: Final = b"HTTP/1.1 "
COMPLETIONS: Final = frozenset(by_path())


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


class AccessLog:
    """The access log without probes, scrapes and answered completions, which metrics count."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def info(self, text: str, client: str, method: str, path: str, version: str, status: int) -> None:
        """Log a response, unless it is one of many."""
        route = path.partition("?")[0]
        if "/health/" not in route and route != "/metrics" and (status != 200 or route not in COMPLETIONS):
            self._logger.info(text, client, method, path, version, status)


class QuietProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with joined writes and a short access log."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.access_logger = AccessLog(self.access_logger)  # type: ignore[assignment]

    def connection_made(self, transport: Any) -> None:
        """Take a connection."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]
