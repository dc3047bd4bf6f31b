"""Holes per minute of the evaluation against the same model in `transformers.generate`, in batches.

    python -m benchmarks.evaluation --examples URI --model URI [--holes N] [--batch N] [--quick]

Both get the same prompts of the first holes, in the order of the examples, and complete them greedily until a stop
token or the limit. The evaluation sorts them by length, and a completion that has ended leaves its batch;
`transformers` loads the model itself, pads each batch to its longest prompt and runs it until its last completion has
ended. Both use the same weights, precision and number of threads. `equal` is the share of holes with the same tokens:
equal probabilities are rounded differently in batches of different shapes. `processor_ratio` compares the time of the
processors.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from infill import entry, manifest
from infill.artifacts.examples import read_holes, request_of
from infill.cli_options import absolute_uri, integer
from infill.evaluate.generation import Generator

QUICK: Final = 24
"""Number of holes of a quick run."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    count = integer("the number", 1)
    parser = entry.Parser(
        prog="python -m benchmarks.evaluation", description="Speed of the evaluation on this machine."
    )
    parser.add_argument("--examples", type=absolute_uri, required=True, metavar="URI", help="examples or a benchmark")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="folder of the model")
    parser.add_argument("--holes", type=count, default=96, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch", type=count, default=12, metavar="N", help="holes of a batch; default: %(default)s")
    parser.add_argument("--max-prompt-tokens", type=count, default=1_024, metavar="N", help="default: %(default)s")
    parser.add_argument("--max-new-tokens", type=count, default=128, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} holes")
    options = parser.parse_args(arguments)
    holes = read_holes(options.examples, "test", QUICK if options.quick else options.holes).to_pylist()
    folder = manifest.fetch(options.model)
    generator = Generator(folder)
    prompts = [generator.prompt(request_of(hole), options.max_prompt_tokens) for hole in holes]
    new = options.max_new_tokens
    _ours(generator, prompts[:1], 2)  # first use of the kernels
    ours, our_time = _timed(lambda: _ours(generator, prompts, new))
    peer: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=generator.model.dtype, local_files_only=True)
    peer.to(generator.device).eval()
    theirs, their_time = _timed(lambda: _transformers(peer, generator, prompts, new, options.batch))
    result = {
        "holes": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "output_tokens": sum(map(len, ours)),
        "holes_per_minute": 60 * len(prompts) / our_time.wall,
        "transformers_holes_per_minute": 60 * len(prompts) / their_time.wall,
        "ratio": their_time.wall / our_time.wall,
        "processor_ratio": their_time.processor / our_time.processor,
        "equal": sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(prompts),
    }
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


def _ours(generator: Generator, prompts: Sequence[Sequence[int]], new: int) -> list[list[int]]:
    return [each.ids for each in generator.generate(prompts, max_new_tokens=new)]


def _transformers(
    peer: Any, generator: Generator, prompts: Sequence[list[int]], new: int, batch: int
) -> list[list[int]]:
    before = torch.get_num_threads()
    torch.set_num_threads(generator.threads)
    outputs: list[list[int]] = []
    for start in range(0, len(prompts), batch):
        outputs += _batch(peer, generator, prompts[start : start + batch], new)
    torch.set_num_threads(before)
    return outputs


def _batch(peer: Any, generator: Generator, prompts: Sequence[list[int]], new: int) -> list[list[int]]:
    width, pad = max(map(len, prompts)), generator.format.endoftext
    tokens = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=generator.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=tokens.device)
    completed = peer.generate(
        input_ids=tokens,
        attention_mask=mask,
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=sorted(generator.stop_ids),
        pad_token_id=pad,
    )
    return [_until_stop(row, generator.stop_ids) for row in completed[:, width:].tolist()]


def _until_stop(row: list[int], stops: frozenset[int]) -> list[int]:
    end = next((place for place, token in enumerate(row) if token in stops), len(row))
    return row[:end]


class Duration(NamedTuple):
    wall: float
    processor: float
    """Time of all processors: on a machine that others use too, it says more than the time on the wall."""


def _timed(work: Callable[[], list[list[int]]]) -> tuple[list[list[int]], Duration]:
    wall, processor = time.monotonic(), time.process_time()
    result = work()
    return result, Duration(time.monotonic() - wall, time.process_time() - processor)


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.evaluation", main))
