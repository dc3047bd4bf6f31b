"""The layer's own cost: the same prompt sent to the stub directly and through the transformer, in turn."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from infill.experiments.typed_sessions import TypedSession
from infill.text import read_text
from serving import local
from serving.events import read_events
from serving.transformer.packer import Packer
from serving.transformer.request import read_request

NAME: Final = "typing"
TOKENS: Final = 16


def percentiles(values: Sequence[float] | NDArray[np.float64], *percents: int) -> list[float]:
    """Return percentiles, rounded."""
    return [round(float(each), 2) for each in np.percentile(values, percents)]


def processor_s(child: local.Child) -> float:
    """Return the seconds that a server's process has run."""
    fields = read_text(f"/proc/{child.process.pid}/stat").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(child: local.Child) -> int:
    """Return the bytes of memory that a server's process has."""
    pages = int(read_text(f"/proc/{child.process.pid}/statm").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def requests(sessions: Sequence[TypedSession]) -> Iterator[dict[str, Any]]:
    """Yield the requests of all sessions, one session after the other, each text before the caret once."""
    for number, session in enumerate(sessions):
        seen = set[str]()
        for moment in session.moments:
            if moment.typed not in seen:
                seen.add(moment.typed)
                yield session.body(moment, workspace=NAME, session=f"layer-{number}", max_tokens=TOKENS)


def open_workspace(url: str, project: Mapping[str, str]) -> None:
    """Send all files to the transformer at `url`, as the workspace NAME."""
    listed = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in project.items()}
    with httpx.Client(timeout=300, trust_env=False) as client:
        body = {"files": listed, "texts": dict(project)}
        client.put(f"{url}/v1/workspaces/{NAME}", json=body).raise_for_status()


@contextmanager
def transformer(
    model: str, predictor: str, project: Mapping[str, str], settings: Sequence[str], echo: Callable[[str], None]
) -> Iterator[local.Child]:
    """Run a transformer in front of the engine at `predictor`, with the project as its workspace; yield it."""
    port = local.free_port()
    arguments = ["--model", model, "--predictor", predictor, "--host", "127.0.0.1", "--http_port", str(port), *settings]
    url = f"http://127.0.0.1:{port}"
    with local.server("transformer", "serving.transformer", url, arguments, echo) as front:
        open_workspace(url, project)
        yield front


def overhead(
    predictor: local.Child, front: local.Child, packer: Packer, sessions: Sequence[TypedSession]
) -> dict[str, Any]:
    """Return what the transformer adds to a call of the predictor, in milliseconds, and its processor time.

    The first session does not count: it warms connections and the index. The stub's timers may differ between the two
    calls: `without_stub` is what is added if the stub's own time is taken from both. After each pair both are asked
    for a stream, which is left at its first event, as an editor leaves it at the next keystroke; so each call but the
    first needs new connections, the direct one too.
    """
    numbers, direct, through, busy = list[int](), list[float](), list[float](), 0.0
    first_direct, first = list[float](), list[float]()
    warm = sum(1 for _ in requests(sessions[:1]))
    with httpx.Client(timeout=60, trust_env=False) as client:
        for number, body in enumerate(requests(sessions)):
            alone = {key: value for key, value in body.items() if key not in ("workspace", "context")}
            prompt = packer.pack(read_request(alone, TOKENS)).prompt.ids
            asked = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
            near = _timed(_post, client, predictor.url, asked, f"near-{number}")
            before = processor_s(front)
            far = _timed(_post, client, front.url, body, f"far-{number}")
            if number >= warm:
                numbers.append(number)
                direct.append(near)
                through.append(far)
                busy += processor_s(front) - before
            near = _timed(_first_event, client, predictor.url, asked)
            far = _timed(_first_event, client, front.url, body | {"prompt": body["prompt"] + " "})
            if number >= warm:
                first_direct.append(near)
                first.append(far)
        stub = client.get(f"{predictor.url}/times").json()
    added, added_first = np.subtract(through, direct), np.subtract(first, first_direct)
    slower = [stub[f"near-{number}"] - stub[f"far-{number}"] for number in numbers]
    return {
        "overhead_ms_p50_p99": percentiles(added, 50, 99),
        "without_stub_ms_p50_p99": percentiles(added + np.array(slower), 50, 99),
        "direct_ms_p50_p99": percentiles(direct, 50, 99),
        "transformer_ms_p50_p99": percentiles(through, 50, 99),
        "first_event_ms_p50_p99": percentiles(first, 50, 99),
        "first_event_overhead_ms_p50_p99": percentiles(added_first, 50, 99),
        "processor_ms": round(1_000 * busy / len(added), 2),
        "requests": len(added),
        "prompt_tokens": len(prompt),
        "body_bytes": len(json.dumps(body)),
    }


def _post(client: httpx.Client, url: str, body: dict[str, Any], name: str) -> None:
    client.post(f"{url}/v1/completions", json=body, headers={"x-request-id": name}).raise_for_status()


def _first_event(client: httpx.Client, url: str, body: dict[str, Any]) -> None:
    """Wait for the first event of a stream, then close it."""
    with client.stream("POST", f"{url}/v1/completions", json=body | {"stream": True}) as response:
        next(read_events(response.iter_bytes()))


def _timed(call: Callable[..., None], *arguments: Any) -> float:
    """Return the milliseconds that a call takes."""
    started = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - started) * 1_000
