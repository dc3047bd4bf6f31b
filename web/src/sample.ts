/** The project that the page opens with: the current file needs what the others define. */

export const CURRENT = "shop/invoice.py";

/** Path -> text; `|` in the current file is the caret. */
export const FILES: Record<string, string> = {
  "shop/money.py": `# SPDX-License-Identifier: Apache-2.0
"""Amounts in cents, so that sums are exact."""

from dataclasses import dataclass

VAT_PERCENT = 19


@dataclass(frozen=True)
class Money:
    cents: int

    def __add__(self, other: "Money") -> "Money":
        return Money(self.cents + other.cents)

    def times(self, count: int) -> "Money":
        return Money(self.cents * count)


def with_vat(net: Money) -> Money:
    """Return the gross amount of a net amount."""
    return Money(round(net.cents * (100 + VAT_PERCENT) / 100))


def show(amount: Money) -> str:
    return f"{amount.cents / 100:.2f} EUR"
`,
  "shop/cart.py": `# SPDX-License-Identifier: Apache-2.0
"""What a customer wants to buy."""

from dataclasses import dataclass, field

from shop.money import Money


@dataclass
class CartLine:
    title: str
    unit_price: Money
    count: int = 1

    def line_total(self) -> Money:
        return self.unit_price.times(self.count)


@dataclass
class Cart:
    customer: str
    lines: list[CartLine] = field(default_factory=list)

    def net_total(self) -> Money:
        total = Money(0)
        for line in self.lines:
            total = total + line.line_total()
        return total
`,
  "shop/invoice.py": `# SPDX-License-Identifier: Apache-2.0
"""The invoice of a cart, as text."""

from shop.cart import Cart
from shop.money import show, with_vat


def invoice(cart: Cart) -> str:
    rows = [f"Invoice for {cart.customer}", ""]
    for line in cart.lines:
        rows.append(f"{line.count} x {line.title}: {show(line.line_total())}")
    net = cart.net_total()
    gross = |
    rows.append(f"Net {show(net)}, to pay {show(gross)}")
    return "\\n".join(rows)
`,
};
