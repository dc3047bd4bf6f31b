"""How many examples a property draws: few in `make test`, all of them in `make test-long`."""

from typing import Any

from hypothesis import settings


def examples(most: int, **more: Any) -> settings:
    """Return the settings of a property that draws `most` examples with the profile `thorough`, else a quarter."""
    return settings(max_examples=max(1, most * settings().max_examples // 100), **more)
