"""Many users who type at once, and requests beyond what the server takes."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp

from benchmarks.keystrokes.layer import NAME, TOKENS, percentiles, processor_s, resident
from infill.experiments.typed_sessions import Moment, TypedSession
from serving import local

RIGHT_CHARS: Final = 10
"""Mean number of characters for which the stub's suggestion is what is typed next."""
WRONG_END: Final = "other_name(value)\n"
TIMEOUT: Final = aiohttp.ClientTimeout(total=60)


class Tally:
    """The outcomes of requests."""

    def __init__(self) -> None:
        self.statuses = Counter[int]()
        self.codes = Counter[str]()
        self.milliseconds: list[float] = []
        self.lookups = Counter[str]()
        self.waits = Counter[str]()

    async def ask(self, client: aiohttp.ClientSession, url: str, body: Mapping[str, Any], rid: str = "") -> None:
        """Send a request and note its answer."""
        headers = {"x-request-id": rid} if rid else {}
        started = time.perf_counter()
        async with client.post(f"{url}/v1/completions", json=body, headers=headers) as response:
            answer = await response.json()
            self.statuses[response.status] += 1
            self.milliseconds.append((time.perf_counter() - started) * 1_000)
            if response.status != 200:
                self.codes[answer["error"]["code"]] += 1
                self.waits[response.headers.get("retry-after", "none")] += 1
            else:
                self.lookups["hit" if answer["infill"].get("cached") else "miss"] += 1


def typing(front: local.Child, sessions: Sequence[TypedSession], count: int, seconds: float, pause_s: float) -> Any:
    """Return the figures of `count` users who ask, read the answer, type on for `pause_s` on average, and ask again."""
    return asyncio.run(_typing(front, sessions, count, seconds, pause_s))


async def _typing(
    front: local.Child, sessions: Sequence[TypedSession], count: int, seconds: float, pause_s: float
) -> dict[str, Any]:
    tally, end = Tally(), time.monotonic() + seconds
    memory, busy = resident(front), processor_s(front)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=TIMEOUT) as client:

        async def user(number: int) -> None:
            chance, session = random.Random(number), sessions[number % len(sessions)]
            await asyncio.sleep(chance.random() * pause_s)
            while time.monotonic() < end:
                for moment in session.moments:
                    body = session.body(moment, workspace=NAME, session=f"user-{number}", max_tokens=TOKENS)
                    await tally.ask(client, front.url, body)
                    await asyncio.sleep(chance.expovariate(1 / pause_s) if pause_s else 0)
                    if time.monotonic() > end:
                        return

        async def look() -> int:
            await asyncio.sleep(seconds / 2)
            return resident(front)

        looking = asyncio.create_task(look())
        await asyncio.gather(*(user(number) for number in range(count)))
        middle = await looking
    answers = sum(tally.statuses.values())
    return {
        "users": count,
        "requests_per_s": round(answers / seconds, 1),
        "statuses": dict(tally.statuses),
        "codes": dict(tally.codes),
        "retry_after": dict(tally.waits),
        "ms_p50_p99": percentiles(tally.milliseconds, 50, 99),
        "processor_ms": round(1_000 * (processor_s(front) - busy) / answers, 2),
        "grown_bytes": middle - memory,
        "grown_later_bytes": resident(front) - middle,
    }


def hits(predictor: local.Child, front: local.Child, sessions: Sequence[TypedSession]) -> dict[str, Any]:
    """Return the share of moments that the cache answers, when suggestions are right for some characters."""
    return asyncio.run(_hits(predictor, front, sessions))


async def _hits(predictor: local.Child, front: local.Child, sessions: Sequence[TypedSession]) -> dict[str, Any]:
    tally, chance = Tally(), random.Random(0)
    async with aiohttp.ClientSession(timeout=TIMEOUT) as client:
        for number, session in enumerate(sessions):
            for step, moment in enumerate(session.moments):
                rid = f"hit-{number}-{step}"
                answers = {rid: suggestion(moment, chance)}
                async with client.post(f"{predictor.url}/answers", json=answers):
                    pass
                body = session.body(moment, workspace=NAME, session=f"hits-{number}", max_tokens=TOKENS)
                await tally.ask(client, front.url, body, rid)
    total = sum(tally.lookups.values())
    return {"hit_rate": round(tally.lookups["hit"] / total, 4), "moments": total}


def abandoned(predictor: local.Child, front: local.Child, session: TypedSession, count: int) -> dict[str, Any]:
    """Return the milliseconds from a client that closes its connection to the end of the predictor's request."""
    return asyncio.run(_abandoned(predictor, front, session, count))


async def _abandoned(
    predictor: local.Child, front: local.Child, session: TypedSession, count: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"whole": [], "stream": []}
    async with aiohttp.ClientSession(timeout=TIMEOUT) as client:
        for number in range(count):
            for kind, each in times.items():
                body = session.body(session.moments[number], workspace=NAME, session=kind, stream=kind == "stream")
                each.append(await _abandon(client, predictor.url, front.url, body))
    return {f"{kind}_ms_p50_p99": percentiles(each, 50, 99) for kind, each in times.items()}


async def _abandon(client: aiohttp.ClientSession, predictor: str, front: str, body: Mapping[str, Any]) -> float:
    """Ask, go as soon as the predictor has the request, in a stream after its first event; return the milliseconds."""
    before = await _counts(client, predictor)
    async with aiohttp.ClientSession(timeout=TIMEOUT) as leaving:
        answer = asyncio.ensure_future(leaving.post(f"{front}/v1/completions", json=body))
        if body["stream"]:
            await (await answer).content.readany()
        while (await _counts(client, predictor))["requests"] == before["requests"]:
            await asyncio.sleep(0.005)
        gone = time.monotonic()
        if answer.done():
            answer.result().close()
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
    while (counts := await _counts(client, predictor))["left"] == before["left"]:
        await asyncio.sleep(0.005)
    return float(1_000 * (counts["left_at"] - gone))


async def _counts(client: aiohttp.ClientSession, predictor: str) -> dict[str, Any]:
    async with client.get(f"{predictor}/counts") as response:
        counts: dict[str, Any] = await response.json()
        return counts


def suggestion(moment: Moment, chance: random.Random) -> str:
    """Return an answer for the stub: right for a number of characters, about RIGHT_CHARS, and wrong after that."""
    right = moment.rest[: int(chance.expovariate(1 / RIGHT_CHARS))]
    return right + WRONG_END
