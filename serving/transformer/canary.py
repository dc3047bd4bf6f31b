"""The policy of a canary: who gets the candidate, and when it is rolled back. Nothing here knows HTTP or a predictor.

A user's place between 0 and 100 is a hash of his name; the candidate answers those below the weight, so that a larger
weight only adds users. Both sides' latest outcomes are kept for a while. The candidate is worse when a 99 % confidence
interval (Wilson's) of its rate lies wholly on the bad side of the interval of the stable one.
"""

import hashlib
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

log = logging.getLogger("kserve.infill")

STABLE, CANDIDATE = "stable", "candidate"
Z: Final = 2.576
"""Half width of the confidence interval in standard deviations: 99 %, since the question is asked again and again."""
SLOWEST: Final = 0.1
"""The share of requests beyond the 90th percentile."""
KEPT: Final = 1_000
"""The most outcomes of a side that are compared, whatever the window's seconds."""


class Fate(Protocol):
    """A suggestion that was shown, whose fate becomes known later."""

    accepted: int
    rejected: bool


class RequestOutcome(NamedTuple):
    """The outcome of a request: whether it failed, and its seconds."""

    failed: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CanaryRules:
    """The thresholds of a rollback."""

    requests: int
    window_s: float
    errors: float
    latency: float
    acceptance: float


def place(key: str) -> float:
    """Return the place of a user between 0 and 100, always the same for the same key."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="replace")).digest()[:8]) / 2**64 * 100


def interval(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's confidence interval of a rate, of which `count` of `total` were seen."""
    if not total:
        return 0.0, 1.0
    rate, square = count / total, Z * Z / total
    middle = (rate + square / 2) / (1 + square)
    half = Z * math.sqrt(rate * (1 - rate) / total + square / (4 * total)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _exceeds(count: int, total: int, other: int, of: int, margin: float) -> bool:
    """Return whether the first rate is larger than the second by more than `margin`, and significantly larger."""
    return count / total - other / of > margin and interval(count, total)[0] > interval(other, of)[1]


@dataclass(kw_only=True)
class SideWindow:
    """The latest outcomes of one side."""

    seconds: float
    clock: Callable[[], float]
    outcomes: deque[tuple[float, RequestOutcome]] = field(default_factory=lambda: deque(maxlen=KEPT))
    shown: deque[tuple[float, Fate]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def requests(self) -> list[RequestOutcome]:
        """Return the outcomes in the window."""
        since = self.clock() - self.seconds
        return [outcome for when, outcome in self.outcomes if when >= since]

    def fates(self) -> list[bool]:
        """Return for each suggestion in the window whose fate is known whether it was accepted."""
        since = self.clock() - self.seconds
        return [fate.accepted > 0 for when, fate in self.shown if when >= since and (fate.accepted or fate.rejected)]


def verdict(stable: SideWindow, candidate: SideWindow, rules: CanaryRules) -> str:
    """Return what is worse about the candidate: `errors`, `latency` or `acceptance`; empty if nothing is."""
    ours, theirs = stable.requests(), candidate.requests()
    if min(len(ours), len(theirs)) >= rules.requests:
        if _exceeds(_failed(theirs), len(theirs), _failed(ours), len(ours), rules.errors):
            return "errors"
        if slower(ours, theirs, rules.latency):
            return "latency"
    taken, given = stable.fates(), candidate.fates()
    if min(len(taken), len(given)) >= rules.requests:
        refusals = given.count(False), len(given), taken.count(False), len(taken)
        if _exceeds(*refusals, rules.acceptance):
            return "acceptance"
    return ""


def _failed(outcomes: Sequence[RequestOutcome]) -> int:
    return sum(outcome.failed for outcome in outcomes)


def slower(stable: Sequence[RequestOutcome], candidate: Sequence[RequestOutcome], multiple: float) -> bool:
    """Return whether significantly more than a tenth of the candidate's answers take longer than `multiple` times p90.

    Failures do not count, which have their own rule.
    """
    ours = sorted(outcome.seconds for outcome in stable if not outcome.failed)
    theirs = [outcome.seconds for outcome in candidate if not outcome.failed]
    if not ours or not theirs:
        return False
    limit = multiple * ours[math.ceil((1 - SLOWEST) * len(ours)) - 1]
    return interval(sum(seconds > limit for seconds in theirs), len(theirs))[0] > SLOWEST


class CanaryState:
    """The weight, both sides' windows, and whether the candidate is ready. Once rolled back it stays so."""

    def __init__(self, weight: float, rules: CanaryRules, clock: Callable[[], float]) -> None:
        self.weight = weight
        self.rules = rules
        self.ready = False
        """Whether the candidate answered when it was last asked."""
        self.rolled_back = ""
        """What was worse about the candidate; empty while nothing is."""
        self._windows = {side: SideWindow(seconds=rules.window_s, clock=clock) for side in (STABLE, CANDIDATE)}
        self._clock = clock

    def chooses_candidate(self, key: str) -> bool:
        """Return whether the candidate answers the user `key`."""
        return self.ready and place(key) < self.weight

    def add(self, side: str, outcome: RequestOutcome) -> str:
        """Keep the outcome of a request; return the reason if the candidate is rolled back for it, else nothing."""
        self._windows[side].outcomes.append((self._clock(), outcome))
        return self._judge()

    def show(self, side: str, fate: Fate) -> None:
        """Keep a suggestion that a user sees."""
        self._windows[side].shown.append((self._clock(), fate))

    def _judge(self) -> str:
        if not self.weight:
            return ""
        reason = verdict(self._windows[STABLE], self._windows[CANDIDATE], self.rules)
        if reason:
            self.rolled_back, self.weight = reason, 0.0
            log.error("the candidate is rolled back: %s worse than the stable model's", reason)
        return reason
