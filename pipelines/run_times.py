"""When a recurring run starts: a cron expression or an interval, as the command line takes it.

A module of its own: `schedule` imports the pipeline, whose images are those that are named by then, and an option names
them.
"""

import re
from argparse import ArgumentTypeError
from collections.abc import Mapping
from typing import Any, Final

UNITS: Final[Mapping[str, int]] = {"m": 60, "h": 3_600, "d": 86_400}


def cron(text: str) -> str:
    """Return a cron expression in KFP's form, which begins with the seconds. Raises ArgumentTypeError for another text.

    KFP would take the first of the usual five fields for seconds, so 0 is put before them.
    """
    fields = text.split()
    if not (len(fields) in (5, 6) and all(re.fullmatch(r"[0-9A-Za-z*/,?-]+", each) for each in fields)):
        raise ArgumentTypeError(
            f"a cron expression has five fields (minute hour day month weekday), such as '0 3 * * *', or six with the"
            f" seconds before them, got {text!r}"
        )
    return " ".join(["0", *fields] if len(fields) == 5 else fields)


def interval(text: str) -> int:
    """Return the seconds of an interval such as 90m, 12h or 7d. Raises ArgumentTypeError for another text."""
    match = re.fullmatch(r"([1-9]\d{0,5})([mhd])", text, re.ASCII)
    if match is None:
        raise ArgumentTypeError(
            f"an interval is a number of minutes, hours or days, such as 90m, 12h or 7d, got {text!r}"
        )
    return int(match[1]) * UNITS[match[2]]


def trigger(expression: str | None, seconds: int | None) -> dict[str, Any]:
    """Return KFP's trigger for a cron expression or, without one, for an interval."""
    if expression:
        return {"cron_schedule": {"cron": expression}}
    return {"periodic_schedule": {"interval_second": str(seconds)}}
