"""Orders of a shop; naïve on purpose."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    item: str
    price: float = 0.0

    def total(self, count: int, *, tax: float = 0.19) -> float:
        """Price with tax, rounded up."""
        if count <= 0:
            raise ValueError(f"{self.item}: count {count} ≤ 0")
        net = self.price * count
        return math.ceil(net * (1 + tax) * 100) / 100


def cheapest(orders: list[Order]) -> Order | None:
    best = None
    for order in orders:
        if best is None or order.price < best.price:
            best = order  # the first of equals
    return best
