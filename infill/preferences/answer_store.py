"""Answers of a judge's server, kept by the content of the request, and what they cost."""

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from infill import storage
from infill.errors import InputError

FOLDER: Final = "answers"
"""Folder next to the stage's outputs with a judge's answers, so that no run, killed or not, pays for one twice."""
CHARS_PER_TOKEN: Final = 3
"""Characters of a token where a server does not report its usage: few, so that a budget is not exceeded."""
MILLION: Final = 1_000_000


class Usage(NamedTuple):
    """Tokens of a request and of its answer."""

    prompt: int
    completion: int


def usage_of(body: Any, asked_chars: int, answered_chars: int) -> Usage:
    """Return the usage that a response reports, else an estimate from the numbers of characters."""
    try:
        usage = Usage(int(body["usage"]["prompt_tokens"]), int(body["usage"]["completion_tokens"]))
    except (KeyError, TypeError, ValueError):
        return Usage(-(-asked_chars // CHARS_PER_TOKEN), -(-answered_chars // CHARS_PER_TOKEN))
    return Usage(max(0, usage.prompt), max(0, usage.completion))


class JudgeBudget:
    """The limits of a judge in tokens and in money, and what is spent; any number of threads may use it."""

    def __init__(self, *, tokens: int = 0, cost: float = 0.0, prices: tuple[float, float] = (0.0, 0.0)) -> None:
        """Create a budget; a limit of 0 is none. `prices` are those of a million prompt and completion tokens."""
        self._tokens, self._cost, self._prices = tokens, cost, prices
        self._lock = threading.Lock()
        self.requests = 0
        self.usage = Usage(0, 0)

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return bool(self._tokens or self._cost)

    @property
    def cost(self) -> float:
        """The money spent, in the currency of the prices."""
        return sum(tokens * price for tokens, price in zip(self.usage, self._prices, strict=True)) / MILLION

    def spend(self, usage: Usage) -> None:
        """Add the usage of one request."""
        with self._lock:
            self.requests += 1
            self.usage = Usage(self.usage.prompt + usage.prompt, self.usage.completion + usage.completion)

    def is_spent(self) -> bool:
        """Return whether a limit is reached; requests that are under way may exceed it."""
        with self._lock:
            tokens = bool(self._tokens) and sum(self.usage) >= self._tokens
            return tokens or (bool(self._cost) and self.cost >= self._cost)


class AnswerStore:
    """A folder with one small file per answer; its name is the hash of all that the answer depends on."""

    def __init__(self, folder: str, run: str) -> None:
        """Open the store in `folder` for the run `run`, which is noted in the answers that it pays for."""
        self._folder, self._run = folder, run

    def get(self, asked: Mapping[str, Any]) -> str | None:
        """Return the answer to a request; None if it is not known."""
        file = self._file(asked)
        try:
            return str(storage.read_json(file)["answer"]) if storage.exists(file) else None
        except (InputError, KeyError, TypeError):  # damaged: it is asked for again
            return None

    def put(self, asked: Mapping[str, Any], answer: str, usage: Usage) -> None:
        """Keep the answer to a request."""
        storage.write_json(self._file(asked), {"run": self._run, "answer": answer, "usage": list(usage)})

    def paid(self) -> list[Usage]:
        """Return the usage of each answer that this run has paid for, before it was killed included."""
        usages = []
        for file in storage.list_files(self._folder, ".json") if storage.exists(self._folder) else ():
            try:
                kept = storage.read_json(file)
                if kept["run"] == self._run:
                    usages.append(Usage(*kept["usage"]))
            except (InputError, KeyError, TypeError):
                continue
        return usages

    def _file(self, asked: Mapping[str, Any]) -> str:
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return storage.join(self._folder, f"{digest}.json")
