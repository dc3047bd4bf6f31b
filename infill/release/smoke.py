"""The smoke test of a deployment: golden prompts through its transformer, before clients use it.

The number of tokens of each prompt is known without the server, from the model's tokenizer and prompt format. A server
that packs differently, or that ignores context, fails.
"""

import statistics
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

import httpx

from infill import prompt, proxies, storage
from infill.api_key import KEY_VARIABLE, api_key, headers
from infill.context.packing import pack
from infill.errors import ServiceError
from infill.prompt import Encode, PromptFormat

PAUSE_S: Final = 1.0

HELPER: Final = {"path": "shapes.py", "text": "def area(width, height):\n    return width * height\n"}


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A request with a known prompt."""

    about: str
    path: str
    prefix: str
    suffix: str = ""
    context: tuple[Mapping[str, str], ...] = ()

    def body(self, max_tokens: int) -> dict[str, Any]:
        """Return the request as an editor sends it."""
        return {
            "path": self.path,
            "prompt": self.prefix,
            "suffix": self.suffix,
            "context": [dict(item) for item in self.context],
            "max_tokens": max_tokens,
            "temperature": 0.0,
        }


GOLDEN: Final = (
    Golden(about="a hole in a line", path="golden/line.py", prefix="def double(x):\n    return ", suffix="\n"),
    Golden(about="a half-typed name", path="golden/name.py", prefix="import os\nos.envi", suffix="['HOME']\n"),
    Golden(about="an empty file", path="golden/empty.go", prefix=""),
    Golden(
        about="control tokens as text",
        path="golden/tokens.py",
        prefix='STOP = "<fim_middle><|endoftext|>"\nif text == ',
        suffix=":\n    pass\n",
    ),
    Golden(about="text that is not ASCII", path="golden/größe.py", prefix="größe = 'ünï 🌍'\nprint(", suffix=")\n"),
    Golden(
        about="a file of the project",
        path="golden/context.py",
        prefix="from shapes import area\n\nprint(area(",
        suffix="))\n",
        context=(HELPER,),
    ),
)


class SmokeError(ServiceError):
    """A deployment that answers incorrectly or not at all."""


def check(
    url: str, model_uri: str, *others: str, latency_ms: float, max_tokens: int = 16, settle_s: float = 30.0
) -> dict[str, float]:
    """Send all golden prompts to the transformer at `url`, which serves the model at `model_uri`.

    With `others` these models may answer as well. Returns `smoke_prompts`, `smoke_p50_ms` and `smoke_max_ms` (whole
    requests, without the warm-up). A server that does not answer yet is retried for `settle_s` seconds. Raises
    SmokeError for another prompt format or number of prompt tokens, for unused context, and for a request slower than
    `latency_ms`; ServiceError when a request fails.
    """
    packers = [_packer(uri) for uri in (model_uri, *others)]
    timeout = max(latency_ms / 1000, 1.0) + 5
    with proxies.client(url, timeout=timeout, headers=headers(api_key())) as client:
        budget = _server(client, packers[0][0].hash, settle_s)
        ask(client, GOLDEN[0].body(max_tokens))
        taken = []
        for golden in GOLDEN:
            answer = ask(client, golden.body(max_tokens))
            request = prompt.FimRequest(path=golden.path, prefix=golden.prefix, suffix=golden.suffix)
            wanted = {len(pack(fmt, encode, request, budget=budget).prompt.ids) for fmt, encode in packers}
            _compare(url, golden, answer, wanted, latency_ms)
            taken.append(answer["latency_ms"])
    figures = {"smoke_prompts": len(taken), "smoke_p50_ms": statistics.median(taken), "smoke_max_ms": max(taken)}
    return {name: round(float(value), 1) for name, value in figures.items()}


def _packer(model_uri: str) -> tuple[PromptFormat, Encode]:
    with storage.some_files(model_uri, prompt.FILES) as folder:
        return prompt.load_format(folder), prompt.load_encoder(folder).encode


def _server(client: httpx.Client, wanted: str, settle_s: float) -> int:
    """Return the server's budget of prompt tokens. Raises SmokeError if its prompt format is not the `wanted` one."""
    until = time.monotonic() + settle_s
    while True:
        try:
            answer = client.get("/v1/models")
            description = answer.raise_for_status().json()["data"][0]["infill"]
            served, budget = str(description["prompt_format"]), int(description["max_prompt_tokens"])
            break
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, IndexError, TypeError) as error:
            if time.monotonic() > until:
                raise SmokeError(
                    f"no Infill transformer answers at {client.base_url} ({error or type(error).__name__}):"
                    " check the network policies and kserve.port of charts/infill-serving"
                ) from error
            time.sleep(PAUSE_S)
    if served != wanted:
        raise SmokeError(
            f"{client.base_url} packs prompts in the format {served[:12]}, but the model was trained with"
            f" {wanted[:12]}: upgrade the transformer's image"
        )
    return budget


def _compare(url: str, golden: Golden, answer: Mapping[str, Any], wanted: Set[int], latency_ms: float) -> None:
    tokens = int(answer["prompt_tokens"])
    if golden.context and not answer["context"]:
        raise SmokeError(f"{url}: the golden prompt of {golden.about} must contain context, got none")
    if not golden.context and tokens not in wanted:
        allowed = " or ".join(map(str, sorted(wanted)))
        raise SmokeError(f"{url}: the golden prompt of {golden.about} must have {allowed} tokens, got {tokens}")
    if answer["latency_ms"] > latency_ms:
        raise SmokeError(
            f"{url}: the golden prompt of {golden.about} took {answer['latency_ms']:.0f} ms, more than the"
            f" {latency_ms:g} ms of deploy.smokeLatency"
        )


def ask(client: httpx.Client, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a completion of the request `body`. Raises ServiceError when the server fails.

    It has `text`, `latency_ms` (of the whole request), `prompt_tokens`, and `context`, the items in the prompt (`path`,
    `lines` as first and last, `score`, `strategy`).
    """
    started = time.monotonic()
    try:
        response = client.post("/v1/completions", json=body)
    except httpx.TimeoutException as error:
        raise ServiceError(f"{client.base_url} did not answer within {client.timeout.read:g} s") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ServiceError(f"no server answers at {client.base_url} ({error}); start one: infill serve") from error
    latency_ms = (time.monotonic() - started) * 1000
    try:
        value = response.json()
        if response.status_code != httpx.codes.OK:
            hint = f"; put one into {KEY_VARIABLE}" if response.status_code == httpx.codes.UNAUTHORIZED else ""
            raise ServiceError(f"{client.base_url} answered {response.status_code}: {value['error']['message']}{hint}")
        details = value["infill"]
        return {
            "text": value["choices"][0]["text"],
            "latency_ms": round(latency_ms, 1),
            "prompt_tokens": details["prompt_tokens"],
            "context": [_item(item) for item in details["context"]],
        }
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ServiceError(
            f"{client.base_url} answered {response.status_code}, but not like an Infill transformer; check the URL"
        ) from error


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    lines = [item["first_line"], item["last_line"]]
    return {"path": item["path"], "lines": lines, "score": item["score"], "strategy": item["strategy"]}
