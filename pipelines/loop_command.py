"""`infill loop`: train, try and decide again and again on one machine. It imports what it needs when it runs."""

import argparse
import json
import sys
from typing import Any

from infill.cli_options import (
    Commands,
    command,
    input_file,
    integer,
    number,
    output_folder,
    port,
    promotion_needs,
    settings_of,
    settings_options,
    word,
)
from pipelines import run_times


def add(commands: Commands) -> None:
    """Add `infill loop`."""
    about = (
        "train on new commits and new feedback, try the winner on some users of the server that it runs, and let them "
        "decide; again and again; prints a line of JSON for each round"
    )
    example = "infill loop --out out/demo --preset finetune --source git:~/code@main --every 24h"
    loop = command(commands, "loop", _loop, about, example)
    settings_options(loop)
    loop.add_argument("--out", type=output_folder, required=True, metavar="DIR", help="the folder of a run, new or not")
    about = (
        "from the start of a round to the next: minutes, hours or days, such as 90m, 12h or 7d; default: %(default)s"
    )
    loop.add_argument("--every", type=run_times.interval, default="1d", metavar="TIME", help=about)
    about = "end after this many rounds; default: %(default)s, never"
    loop.add_argument("--rounds", type=integer("the number of rounds", 0), default=0, metavar="N", help=about)
    about = "keep what users who agree to it made of suggestions, in DIR/feedback, and train on that too"
    loop.add_argument("--keep-feedback", action="store_true", help=about)
    about = "share of the users whom a candidate answers; default: %(default)g"
    weight = number("the weight", positive=True, high=99)
    loop.add_argument("--canary-weight", type=weight, default=20.0, metavar="PERCENT", help=about)
    promotion_needs(loop)
    loop.add_argument("--port", type=port, default=8_080, help="port of the server; default: %(default)s")
    about = "address to listen on, 0.0.0.0 for all; default: %(default)s"
    loop.add_argument("--host", type=word, default="127.0.0.1", help=about)
    about = "require one of the keys in this file; see infill keys --help"
    loop.add_argument("--keys", type=input_file, metavar="FILE", help=about)


def _loop(options: argparse.Namespace) -> None:
    from infill.release.canary_decision import CanaryPatience
    from pipelines import rounds
    from serving.local import until_interrupted
    from serving.transformer import keys

    if options.keys:
        keys.load(options.keys)  # what is wrong with it is said before a training begins
    plan = rounds.LoopPlan(
        out=options.out,
        preset=options.preset,
        settings=settings_of(options),
        host=options.host,
        port=options.port,
        keys=str(options.keys or ""),
        weight=options.canary_weight,
        feedback=options.keep_feedback,
        every=options.every,
        patience=CanaryPatience(requests=options.requests, suggestions=options.suggestions, seconds=float("inf")),
    )

    def show(result: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(result, sort_keys=True) + "\n")
        sys.stdout.flush()
        options.exit_code = int(result["outcome"] == rounds.FAILED)

    with until_interrupted():
        rounds.run(plan, options.rounds, show)
