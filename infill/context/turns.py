"""A lock for an index that is queried while it is updated: a query goes ahead of the updates that wait."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock with two kinds of holders, one at a time. An update waits until no query is waiting."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = False
        self._waiting = 0

    @contextmanager
    def query(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the lock, ahead of all waiting updates. Raises BlockingIOError if it is held and must not `wait`."""
        with self._changed:
            if self._held and not wait:
                raise BlockingIOError("the index is in use")
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._held)
                self._held = True
            finally:
                self._waiting -= 1
        yield from self._use()

    @contextmanager
    def update(self) -> Iterator[None]:
        """Hold the lock, after all waiting queries."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held and not self._waiting)
            self._held = True
        yield from self._use()

    def _use(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()
