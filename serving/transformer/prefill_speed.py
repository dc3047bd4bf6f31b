"""The speed at which the predictor reads prompts, from its answers, and what a token that it reads again costs.

Packing keeps the items of a session's last prompt unless others are worth the tokens that must be computed again. How
much these cost depends on the engine: on a GPU a whole prompt takes a tenth of a second, on a CPU several. So the price
follows the measured time, queues included: a busy predictor makes prompts change less.
"""

from collections import deque
from statistics import median
from typing import Final

from prometheus_client import Gauge

from infill.context.packing import RULES, PackingRules

SECOND: Final = 0.5
"""Share of the candidates' score that a second of waiting is worth: our own choice."""
LEAST_PRICE: Final = 0.2
"""At a lower price more is computed again, and no better context comes of it (docs/log.md, "The price of fresh
context")."""
MANY: Final = 256
"""Computed tokens of an answer whose time to the first event is that of its prompt."""
FEW: Final = 32
"""Computed tokens of an answer whose time to the first event is that of everything else."""
KEPT: Final = 32
"""Answers of each kind that count, the latest."""
LEAST: Final = 3
"""Answers with MANY tokens without which nothing is known."""


class PrefillSpeed:
    """The speed of one predictor; all methods run on the event loop, but `rules` may run in any thread."""

    def __init__(self, gauge: Gauge) -> None:
        self._many: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._few: deque[float] = deque(maxlen=KEPT)
        self._seconds: float | None = None
        self._gauge = gauge

    def observe(self, computed: int, seconds: float) -> None:
        """Take the time to the first event of an answer for whose prompt the predictor computed that many tokens."""
        if computed >= MANY:
            self._many.append((computed, seconds))
        elif computed <= FEW:
            self._few.append(seconds)
        if len(self._many) >= LEAST and computed >= MANY:
            rest = median(self._few) if self._few else 0.0
            # Not less than nothing: a few slow short answers would make long ones free.
            self._seconds = median(max(each - rest, 0.0) / tokens for tokens, each in self._many)
            if self._seconds:
                self._gauge.set(1 / self._seconds)

    def rules(self, budget: int) -> PackingRules:
        """Return the rules of packing prompts of at most `budget` tokens, with the price of what is known so far."""
        if self._seconds is None:
            return RULES
        return PackingRules(prefill_price=max(SECOND * self._seconds * budget, LEAST_PRICE))
