"""The gain of computing a prompt before it is asked for: time to the first event after another file was saved.

A session asks, a file whose text is in its prompt is saved, and after a pause the session asks again with one more
character. Without warming, everything from the changed item on is computed then.
"""

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import httpx

from benchmarks.keystrokes.layer import NAME, percentiles
from infill.experiments.typed_sessions import TypedSession
from infill.text import split_lines
from serving.events import read_events

LINE = "\nsaved = True\n"


def first_events(url: str, project: dict[str, str], sessions: Sequence[TypedSession], pause_s: float) -> list[float]:
    """Return the milliseconds to the first event of each session's request after the change."""
    texts, times = dict(project), []
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as client:
        revision = client.get(f"/v1/workspaces/{NAME}").raise_for_status().json()["revision"]
        for number, session in enumerate(sessions):
            query = session.hole.query
            body = {"path": query.path, "prompt": query.prefix, "suffix": query.suffix, "max_tokens": 1}
            body |= {"workspace": NAME, "session": f"warm-{number}", "temperature": 0}
            shown = client.post("/v1/completions", json=body).raise_for_status().json()["infill"]["context"]
            for item in shown[:1]:
                texts[item["path"]] = _changed(texts[item["path"]], item["first_line"])
                changed = {item["path"]: texts[item["path"]]}
                files = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in changed.items()}
                change = {"revision": revision, "files": files, "texts": changed}
                revision = client.patch(f"/v1/workspaces/{NAME}", json=change).raise_for_status().json()["revision"]
            time.sleep(pause_s)
            body["prompt"] = query.prefix + session.hole.middle[:1]
            times.append(_first_event(client, body))
    return times


def _changed(text: str, line: int) -> str:
    """Return the text with a new line in front of the given one, so that the item in the prompt is another."""
    lines = split_lines(text, keepends=True)
    return "".join([*lines[:line], LINE.lstrip("\n"), *lines[line:]])


def _first_event(client: httpx.Client, body: dict[str, Any]) -> float:
    started = time.perf_counter()
    with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
        next(read_events(response.iter_bytes()))
    return (time.perf_counter() - started) * 1_000


def figures(times: Sequence[float]) -> dict[str, Any]:
    """Return the percentiles of the times."""
    return {"first_event_ms_p50_p90": percentiles(times, 50, 90), "sessions": len(times)}
