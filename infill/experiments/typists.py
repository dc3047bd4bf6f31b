"""Experiment `typists`: the wait for an answer of one server, transformer and predictor, when several people type.

In each round, the cells take turns, each with its own number of typists at once. A cell's project has a folder of its
own in each round, so that nothing of its prompts is in a cache at first. A typist asks, waits for the answer, types on
for a while, and asks again.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from infill import proxies, storage
from infill.context import ProjectIndex
from infill.errors import InputError, ServiceError
from infill.experiments import experiment_run
from infill.experiments.experiment import Experiment, Measure
from infill.experiments.typed_sessions import Moment, TypedSession, sessions
from infill.manifest import Manifest

NAME: Final = "typists"
TYPISTS: Final = (1, 2, 4, 8)
TIMEOUT_S: Final = 300.0
Serve = Callable[["TypistsConfig", str], AbstractContextManager[str]]
"""Starts the servers for a model and yields their URL."""


def _waits(kind: str, label: str) -> tuple[Measure, ...]:
    return tuple(
        Measure(
            name=f"{kind}_p{share}",
            label=f"{label}, p{share}",
            unit="ms",
            higher_is_better=False,
            column=f"{kind}_ms",
            quantile=share / 100,
        )
        for share in (50, 90, 99)
    )


TYPISTS_MEASURES: Final = (
    *_waits("first", "first token"),
    *_waits("whole", "whole answer"),
    Measure(name="per_s", label="answers per second"),
    Measure(name="cached", label="answers from the cache", higher_is_better=None),
    Measure(name="known_tokens", label="prompt from the caches", higher_is_better=None),
    Measure(name="prompt_tokens", label="prompt", unit="tokens", higher_is_better=None),
    Measure(name="refused", label="refused", higher_is_better=None),
)


@dataclass(frozen=True, kw_only=True)
class TypistsConfig:
    name: str = NAME
    typists: tuple[int, ...] = TYPISTS
    """Typists at once, one cell each; the first is the baseline."""
    rounds: int = 8
    """Number of rounds; with fewer than 7, no difference of four cells can be shown."""
    moments: int = 6
    """Requests of each typist in a round."""
    pause_s: float = 0.6
    """Mean seconds of typing between an answer and the next request, for three characters."""
    max_prompt_tokens: int = 1_024
    """Maximum tokens of a prompt; the project fills it."""
    max_new_tokens: int = 16
    engine: str = "auto"
    """Engine of the predictor."""


def run(config: TypistsConfig, *, repository: Path, model: str, output: str, serve: Serve) -> Manifest:
    """Write the experiment to the folder `output`; return its manifest. The servers run only while they are needed.

    Raises InputError when the project has too few lines to type, ServiceError when the servers fail.
    """
    inputs = {"repository": storage.fingerprint(str(repository)), "model": experiment_run.digest(model)}
    with ExitStack() as stack:

        def start() -> Experiment:
            project = _project(repository)
            typed = _sessions(config, project, repository)
            return _experiment(config, TypingRoom(config, stack.enter_context(serve(config, model)), project, typed))

        return experiment_run.run(start, config=config, inputs=inputs, output=output)


def _project(repository: Path) -> dict[str, str]:
    index = ProjectIndex.from_repository(repository)
    return {path: index.text(path) for path in sorted(index.files)}


def _sessions(config: TypistsConfig, project: Mapping[str, str], repository: Path) -> list[TypedSession]:
    wanted = max(config.typists)
    typed = sessions(project, max(wanted, config.rounds), repository.name)
    if len(typed) < wanted:
        raise InputError(
            f"{repository} has lines for only {len(typed)} of {wanted} typists: lines that need names which another "
            "file defines, and are long enough; name a larger project, or fewer --typists"
        )
    return typed


def _experiment(config: TypistsConfig, room: "TypingRoom") -> Experiment:
    return Experiment(
        name=NAME,
        question="How long do several people who type at once wait for the answers of one server?",
        factor="typists at once",
        cells=[str(count) for count in config.typists],
        baseline=f"{config.typists[0]} typist" + "s" * (config.typists[0] > 1),
        measures=TYPISTS_MEASURES,
        places="rounds",
        holes=[f"round {number}" for number in range(1, config.rounds + 1)],
        measure=lambda cell, place: room.measure(int(cell), place),
        setting=[
            f"Each round has {config.moments} requests of each typist, of prompts with at most "
            f"{config.max_prompt_tokens:,} tokens that the project fills, and at most {config.max_new_tokens} new "
            f"ones; between an answer and the next request a typist types three characters in {config.pause_s:g} s on "
            "average. The first request of a typist finds nothing in the caches. A typist waits for each answer, so a "
            "slow server gets fewer requests. Quantiles are of all requests; their intervals are over the "
            f"{config.rounds} rounds, and those of the 99th percentile are too short."
        ],
    )


@dataclass
class Waits:
    """The answers to one typist's requests."""

    first_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    known_tokens: list[int] = field(default_factory=list)
    cached: list[bool] = field(default_factory=list)
    refused: int = 0


class TypingRoom:
    """Typists of one project at one server."""

    def __init__(
        self, config: TypistsConfig, url: str, project: Mapping[str, str], typed: Sequence[TypedSession]
    ) -> None:
        self._config, self._url, self._project, self._typed = config, url, project, typed

    def measure(self, count: int, place: int) -> dict[str, Any]:
        """Let `count` people type at once in one round; return their figures.

        Raises ServiceError when the server refuses every request, or fails.
        """
        folder = f"r{place}c{count}"
        self._open(folder)
        start = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            waits = list(pool.map(lambda number: self._type(folder, place, number), range(count)))
        seconds = time.perf_counter() - start
        return _figures(waits, seconds)

    def _open(self, folder: str) -> None:
        """Open a workspace with the project in a folder."""
        texts = {f"{folder}/{path}": text for path, text in self._project.items()}
        listed = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
        with proxies.client(self._url, timeout=TIMEOUT_S) as client:
            body = {"files": listed, "texts": texts}
            answer = client.put(f"/v1/workspaces/{folder}", json=body)
        if answer.status_code >= 400:
            raise ServiceError(f"the server does not take the project ({answer.status_code}): {answer.text[:300]}")

    def _type(self, folder: str, place: int, number: int) -> Waits:
        """Type one session; each typist of a round has another one."""
        waits, chance = Waits(), random.Random(f"{place} {number}")
        session = self._typed[(place + number) % len(self._typed)]
        with proxies.client(self._url, timeout=TIMEOUT_S) as client:
            for moment in session.moments[: self._config.moments]:
                time.sleep(chance.expovariate(1 / self._config.pause_s))
                self._ask(client, _body(session, moment, folder, number, self._config.max_new_tokens), waits)
        return waits

    def _ask(self, client: httpx.Client, body: Mapping[str, Any], waits: Waits) -> None:
        start = time.perf_counter()
        with client.stream("POST", "/v1/completions", json=body) as answer:
            content, first = b"", 0.0
            for chunk in answer.iter_bytes():
                first = first or time.perf_counter()
                content += chunk
        if answer.status_code == 429:
            waits.refused += 1
            return
        if answer.status_code != 200:
            raise ServiceError(f"the server answers {answer.status_code}: {content[:300]!r}")
        events = _events(content)
        usage = next(each["usage"] for each in reversed(events) if each.get("usage"))
        waits.first_ms.append(1_000 * (first - start))
        waits.whole_ms.append(1_000 * (time.perf_counter() - start))
        waits.prompt_tokens.append(usage["prompt_tokens"])
        waits.known_tokens.append(usage["prompt_tokens_details"]["cached_tokens"])
        waits.cached.append(events[0]["infill"]["cached"])


def _events(content: bytes) -> list[dict[str, Any]]:
    """Return the events of a whole stream of our server, each of which is one line of JSON."""
    lines = (line.removeprefix(b"data: ") for line in content.split(b"\n") if line.startswith(b"data: {"))
    return [json.loads(line) for line in lines]


def _body(session: TypedSession, moment: Moment, folder: str, number: int, tokens: int) -> dict[str, Any]:
    """Return the request of a moment in the project's folder."""
    body = session.body(moment, workspace=folder, session=f"typist {number}", max_tokens=tokens, stream=True)
    context = [{**each, "path": f"{folder}/{each['path']}"} for each in body["context"]]
    return {
        **body,
        "path": f"{folder}/{body['path']}",
        "context": context,
        "stream_options": {"include_usage": True},
    }


def _figures(waits: Sequence[Waits], seconds: float) -> dict[str, Any]:
    """Return the row of a round: the times of all requests, and what describes them."""
    first, whole, prompts, known, cached = (
        [value for each in waits for value in getattr(each, name)]
        for name in ("first_ms", "whole_ms", "prompt_tokens", "known_tokens", "cached")
    )
    refused = sum(each.refused for each in waits)
    if not first:
        raise ServiceError(f"the server refused all {refused} requests of a round; name fewer --typists")
    return {
        "first_ms": first,
        "whole_ms": whole,
        "per_s": len(first) / seconds,
        "cached": sum(cached) / len(cached),
        "known_tokens": sum(known) / sum(prompts),
        "prompt_tokens": sum(prompts) / len(prompts),
        "refused": refused / (refused + len(first)),
    }
