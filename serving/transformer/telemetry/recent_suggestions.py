"""The latest suggestions of each tenant, to check what clients report about them."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from serving.transformer.telemetry.counts import Labels

SUGGESTIONS: Final = 32_768
"""Suggestions of all tenants: at 1,000 seats enough for what is reported two minutes later."""
MAX_CHARS: Final = 2_048
"""Characters of a suggestion's text that are kept."""


@dataclass(kw_only=True)
class Suggestion:
    """A completion that was answered, and what its client has reported so far."""

    labels: Labels
    text: str
    """The beginning of its text, with `\\n` as line end."""
    chars: int
    """Length of the whole text."""
    finished: bool
    """Whether the model ended it by itself."""
    answered: float
    """Time of the monotonic clock."""
    prompt_format: str = ""
    """Hash of the prompt format of the model that answered."""
    shown: bool = False
    accepted: int = 0
    """Characters that were accepted."""
    rejected: bool = False
    persisted: set[int] = field(default_factory=set)
    """The seconds after which its persistence was reported."""
    kept: bool = False
    """Whether it is in the feedback dataset."""


class Memory:
    """Suggestions by tenant and id. When it is full, the tenant with the most loses its oldest one."""

    def __init__(self, most: int = SUGGESTIONS) -> None:
        self._most = most
        self._count = 0
        self._tenants: dict[str, OrderedDict[str, Suggestion]] = {}

    def __len__(self) -> int:
        return self._count

    def put(self, tenant: str, identifier: str, suggestion: Suggestion) -> None:
        """Remember a suggestion."""
        mine = self._tenants.setdefault(tenant, OrderedDict())
        self._count += identifier not in mine
        mine[identifier] = suggestion
        mine.move_to_end(identifier)
        if self._count > self._most:
            self._forget_one()

    def get(self, tenant: str, identifier: str) -> Suggestion | None:
        """Return a suggestion of a tenant; None for one that is unknown, forgotten or another tenant's."""
        mine = self._tenants.get(tenant)
        return mine.get(identifier) if mine else None

    def _forget_one(self) -> None:
        largest = max(self._tenants, key=lambda tenant: len(self._tenants[tenant]))
        self._tenants[largest].popitem(last=False)
        self._count -= 1
        if not self._tenants[largest]:
            del self._tenants[largest]
