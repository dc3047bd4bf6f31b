"""The training engine against its peers: the same model, the same data, alternating runs, medians of ratios.

    python -m benchmarks.training [--quick] [--only NAME ...] [--rounds N]
    python -m benchmarks.training --device cuda [--presets NAME ...]     # the presets' rate and MFU, `rates.py`

Ratios are our throughput over theirs; above one we are faster.

- step_vs_torch: an optimiser step of our engine against a plain PyTorch loop with the same Hugging Face Llama.
- step_vs_trainer: the same against Hugging Face's Trainer.
- sft_vs_trl: tokens other than padding per second on packed examples, against TRL's SFTTrainer with packing.
- lora_vs_full: the same with SmolLM2-135M's shape, training LoRA matrices against training all weights.
- lora_vs_trl: the same with LoRA on both sides, against TRL's SFTTrainer with peft.
- dpo_vs_trl: pairs per second with prompts of 1,024 tokens and completions of 64, against TRL's DPOTrainer, both with
  precomputed log-probabilities of the reference.
- ray_vs_torchrun: steady tokens per second of two Ray Train workers against two torchrun ranks, both with DeepSpeed.
- data_wait: share of the time for which our loop waits for data, which it tokenises while it trains.
"""

import contextlib
import copy
import functools
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import rates
from infill import entry, inference, model, ray_session
from infill.cli_options import integer
from infill.config import PRESETS, ModelConfig, PretrainConfig, TrainConfig
from infill.prompt import infill_format
from infill.text import read_text, split_lines
from infill.train import adapter, history, loop, objectives, trainer
from infill.train.batch import Batch, Item, pack, pair_item, plain_item
from infill.train.data import ItemLane, Listed, State, TextLane, draw
from infill.train.engine import Engine, PlainEngine
from infill.train.training_job import TrainingJob

VOCABULARY: Final = 4_096
SHAPE: Final = ModelConfig(
    layers=4, width=128, mlp_width=344, heads=4, kv_heads=4, context_length=2_048, rope_base=1e4, tie_embeddings=True
)
"""The demo's model, with a context long enough for a pair."""
TRAIN: Final = TrainConfig(batch_tokens=2_048, micro_batch_tokens=2_048, launcher="local")
ROWS: Final = 8
"""Sequences in a batch of TRAIN."""
STEPS: Final = 8
"""Timed steps of each turn, after an untimed one."""
SMOLLM2: Final = ModelConfig(
    layers=30, width=576, mlp_width=1_536, heads=9, kv_heads=3, context_length=8_192, rope_base=1e5, tie_embeddings=True
)
SMOLLM2_VOCABULARY: Final = 49_152
LORA: Final = replace(TRAIN, lora_rank=16)
LORA_STEPS: Final = 2
"""Timed steps of a turn with SmolLM2's shape, each of which takes about 15 s on two cores."""
SLOW: Final = ("ray_vs_torchrun", "lora_vs_full", "lora_vs_trl")
Turn = Callable[[], float]
"""A function that trains for a while and returns its throughput."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparisons."""
    parser = entry.Parser(prog="python -m benchmarks.training", description="Speed of the training engine.")
    parser.add_argument("--quick", action="store_true", help=f"one round, without {', '.join(SLOW)}")
    parser.add_argument("--only", nargs="+", choices=sorted(COMPARISONS), help="only these figures")
    parser.add_argument(
        "--rounds", type=integer("the number of rounds", 1), default=7, help="turns of each side (default 7)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda measures the presets' speed and MFU"
    )
    parser.add_argument(
        "--presets", nargs="+", choices=sorted(PRESETS), help="measure only the speed of these presets on the device"
    )
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: PyTorch finds no CUDA device on this machine")
    if options.presets or options.device == "cuda":
        device = torch.device(options.device)
        rated = rates.measure(options.presets or ["small", "mellum_4b"], device)
        print(json.dumps({"device": inference.device_name(device), **rated}))
        return
    names = options.only or [name for name in COMPARISONS if not (options.quick and name in SLOW)]
    figures: dict[str, Any] = {"device": f"cpu, {torch.get_num_threads()} threads"}
    for name in names:
        figures[name] = COMPARISONS[name](1 if options.quick else options.rounds)
        print(f"{name} {figures[name]:.4g}", flush=True)
    print(json.dumps(figures))


def ratio(ours: Turn, theirs: Turn, rounds: int) -> float:
    """Return the median of ours over theirs in alternating turns, after one warm-up turn of each."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    for mine, other in pairs:
        print(f"  ours {mine:.5g}, theirs {other:.5g}")
    return round(statistics.median(mine / other for mine, other in pairs), 3)


def settings() -> Any:
    return model.llama_config(SHAPE, VOCABULARY)


def llama() -> Any:
    return model.build(settings(), seed=0)


def tokens(length: int, *key: object) -> list[int]:
    return [32 + int(draw(place, *key) * (VOCABULARY - 32)) for place in range(length)]


@functools.cache
def sequences() -> list[list[int]]:
    return [tokens(2_048 // ROWS, row) for row in range(ROWS)]


def our_steps(
    batch: Batch, objective: objectives.Objective, count: float, decoder: Any = None, steps: int = STEPS
) -> Turn:
    """Return a turn of our engine on `batch`, which holds `count` units (tokens or pairs)."""
    engine = PlainEngine(decoder or llama(), TRAIN, torch.device("cpu"))

    def step() -> None:
        result = objective(engine.score(batch), batch)
        engine.backward(result.loss / batch.weight)
        engine.step(1e-4)

    return timed(step, count, steps)


def timed(step: Callable[[], None], count: float, steps: int = STEPS) -> Turn:
    """Return a turn of `steps` steps, each of which processes `count` units."""

    def turn() -> float:
        step()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        return steps * count / (time.perf_counter() - started)

    return turn


def step_vs_torch(rounds: int) -> float:
    items = [plain_item(ids, group="any") for ids in sequences()]
    ours = our_steps(pack(items, 2_048), objectives.language_model, 2_048)
    theirs = llama()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4)
    ids = torch.tensor(sequences())

    def step() -> None:
        theirs(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return ratio(ours, timed(step, 2_048), rounds)


class Stopwatch:
    """A callback of Hugging Face's trainers that records the time at the end of each step."""

    def __new__(cls) -> Any:
        from transformers import TrainerCallback

        class Callback(TrainerCallback):
            times: list[float] = []  # noqa: RUF012

            def on_step_end(self, *_: Any, **__: Any) -> None:
                self.times.append(time.perf_counter())

        return Callback()


def their_turn(make: Callable[[list[Any]], Any], count: Callable[[], float]) -> Turn:
    """Return a turn of the trainer that `make` makes with callbacks; one of its steps processes `count` units."""

    def turn() -> float:
        watch = Stopwatch()
        watch.times = []
        trainer = make([watch])
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
        return float((len(watch.times) - 1) * count() / (watch.times[-1] - watch.times[0]))

    return turn


def arguments(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": STEPS + 1,
        "learning_rate": 1e-4,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,  # on by default in TRL
    }


def step_vs_trainer(rounds: int) -> float:
    from transformers import Trainer, TrainingArguments, default_data_collator

    items = [plain_item(ids, group="any") for ids in sequences()]
    data: Any = [{"input_ids": ids, "labels": ids} for ids in sequences() * (STEPS + 1)]
    theirs = llama()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(**arguments(folder), per_device_train_batch_size=ROWS)

        def make(callbacks: list[Any]) -> Any:
            return Trainer(theirs, settings, default_data_collator, data, callbacks=callbacks)

        ours = our_steps(pack(items, 2_048), objectives.language_model, 2_048)
        return ratio(ours, their_turn(make, lambda: 2_048), rounds)


def examples() -> list[tuple[list[int], list[int]]]:
    """Return fine-tuning examples: prompts of 200 to 900 tokens with middles of 20 to 150."""
    sizes = [(int(200 + 700 * draw("prompt", k)), int(20 + 130 * draw("middle", k))) for k in range(64)]
    return [(tokens(before, "p", k), tokens(after, "m", k)) for k, (before, after) in enumerate(sizes)]


class Holes(Listed):
    """The examples as items of our engine."""

    what = "examples"

    def __len__(self) -> int:
        return len(examples())

    def __getitem__(self, index: int) -> Item:
        prompt, middle = examples()[index]
        return plain_item([*prompt, *middle], start=len(prompt) - 1, group="any")


def sft_vs_trl(rounds: int) -> float:
    batch = ItemLane(Holes(), 2_048, seed=0, lane=0, lanes=1)()
    with trl_sft(llama(), None, STEPS) as theirs:
        return ratio(our_steps(batch, objectives.language_model, batch.used), theirs, rounds)


def lora_vs_full(rounds: int) -> float:
    batch = ItemLane(Holes(), 2_048, seed=0, lane=0, lanes=1)()
    full = our_steps(batch, objectives.language_model, batch.used, smollm2(), LORA_STEPS)
    return ratio(our_lora(batch), full, rounds)


def lora_vs_trl(rounds: int) -> float:
    from peft import LoraConfig

    batch = ItemLane(Holes(), 2_048, seed=0, lane=0, lanes=1)()
    config = LoraConfig(
        r=LORA.lora_rank, lora_alpha=LORA.lora_rank, target_modules=list(LORA.lora_modules), task_type="CAUSAL_LM"
    )
    with trl_sft(smollm2(), config, LORA_STEPS) as theirs:
        return ratio(our_lora(batch), theirs, rounds)


def smollm2() -> Any:
    return model.build(model.llama_config(SMOLLM2, SMOLLM2_VOCABULARY), seed=0)


def our_lora(batch: Batch) -> Turn:
    decoder = smollm2()
    adapter.adapt(decoder, LORA, infill_format())
    return our_steps(batch, objectives.language_model, batch.used, decoder, LORA_STEPS)


@contextlib.contextmanager
def trl_sft(decoder: Any, lora: Any, steps: int) -> Iterator[Turn]:
    """Yield a turn of TRL's SFTTrainer on `examples`, in tokens other than padding."""
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    rows = [
        {"input_ids": [*prompt, *middle], "completion_mask": [0] * len(prompt) + [1] * len(middle)}
        for prompt, middle in examples()
    ]
    data, seen = Dataset.from_list(rows), [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            **{**arguments(folder), "max_steps": steps + 1},
            per_device_train_batch_size=1,
            packing=True,
            max_length=2_048,
            completion_only_loss=True,
        )

        def make(callbacks: list[Any]) -> Any:
            own = (
                None if lora is None else copy.deepcopy(decoder)
            )  # peft wraps the layers of the model that it is given
            trainer = SFTTrainer(
                own or decoder,
                settings,
                train_dataset=data,
                processing_class=tokenizer(),
                callbacks=callbacks,
                peft_config=lora,
            )
            packed: Any = trainer.train_dataset
            lengths = [len(row) for row in packed["input_ids"]]
            seen[:] = [sum(lengths), len(lengths)]
            return trainer

        yield their_turn(make, lambda: seen[0] / seen[1])


def tokenizer() -> Any:
    """Return a tokenizer, of which the trainers use only the padding, since the data are token ids."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"t{number}": number for number in range(VOCABULARY)}
    plain = Tokenizer(models.WordLevel(words, unk_token="t0"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="t0", pad_token="t4")  # type: ignore[no-untyped-call]


def dpo_vs_trl(rounds: int) -> float:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]

    pairs = [(tokens(1_024, "x", k), tokens(64, "y", k), tokens(64, "n", k)) for k in range(2 * (STEPS + 1))]
    batch = pack([pair_item(*pair) for pair in pairs[:1]], 1_155)
    ours = our_steps(batch, objectives.dpo(0.1), 1)
    rows = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in pairs
    ]
    text = [{name.removesuffix("_ids"): words(ids) for name, ids in row.items()} for row in rows]
    theirs = llama()
    with tempfile.TemporaryDirectory() as folder:
        settings = DPOConfig(
            **arguments(folder), per_device_train_batch_size=1, precompute_ref_log_probs=True, max_length=1_200
        )
        data = Dataset.from_list(text)

        def make(callbacks: list[Any]) -> Any:
            names: Any = {"train_dataset": data, "processing_class": spaced_tokenizer(), "callbacks": callbacks}
            return DPOTrainer(theirs, None, settings, **names)

        return ratio(ours, their_turn(make, lambda: 1), rounds)


def words(ids: Sequence[int]) -> str:
    return "".join(f" t{number}" for number in ids)


def spaced_tokenizer() -> Any:
    from tokenizers import pre_tokenizers

    spaced = tokenizer()
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return spaced


TWO: Final = TrainConfig(
    steps=30, batch_tokens=2_048, micro_batch_tokens=1_024, workers=2, log_every=10, checkpoint_every=1_000
)


class Fixed(Listed):
    what = "sequences"

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Item:
        return plain_item(sequences()[index], group="any")


def fixed_work(_engine: Engine) -> loop.Work:
    def open_lane(number: int, state: State | None) -> ItemLane:
        return ItemLane(Fixed(), 1_024, seed=0, lane=number, lanes=2, state=state)

    return loop.Work(objective=objectives.language_model, open_lane=open_lane)


def ray_vs_torchrun(rounds: int) -> float:
    """Compare the rates of the last 20 of 30 steps, so that start-up does not count on either side."""
    from tests.builders import tiny_tokenizer

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer_folder = tiny_tokenizer(Path(folder) / "tokenizer")
            output = f"{folder}/out"
            trainer.fit(
                TrainingJob(
                    label="pretrain",
                    train=TWO,
                    output=output,
                    settings=settings,
                    model=llama,
                    tokenizer=tokenizer_folder,
                    work=fixed_work,
                )
            )
            return steady(history.read(output))

    def theirs() -> float:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "benchmarks.torchrun"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return float(split_lines(done.stdout.strip())[-1])

    with ray_session.session():
        pairs = [(ours(), theirs()) for _ in range(min(rounds, 3))]
    for mine, other in pairs:
        print(f"  ours {mine:.5g}, theirs {other:.5g}")
    return round(statistics.median(mine / other for mine, other in pairs), 3)


def steady(rows: Sequence[history.Row]) -> float:
    """Return the tokens per second between the first row and the last."""
    return float((rows[-1]["tokens"] - rows[0]["tokens"]) / (rows[-1]["seconds"] - rows[0]["seconds"]))


def data_wait(rounds: int) -> float:
    """Return the share of time spent waiting for data in training on this package's source, after the first steps."""
    from tests.builders import tiny_tokenizer, write_documents

    source = {path.name: read_text(path) for path in sorted(Path(model.__file__).parent.rglob("*.py"))}
    train = replace(TRAIN, steps=5 * (rounds + 1), log_every=5, checkpoint_every=1_000)
    with tempfile.TemporaryDirectory() as folder:
        from infill import prompt
        from infill.train.data import TrainingDocuments

        corpus = write_documents(Path(folder) / "corpus", {"infill": source}, {"infill": "train"})
        encoder = prompt.load_encoder(Path(tiny_tokenizer(Path(folder) / "tokenizer")))
        config = PretrainConfig(model=SHAPE, train=train)
        documents = TrainingDocuments(corpus, "train")

        def open_lane(lane: int, state: State | None) -> TextLane:
            return TextLane(documents, encoder, infill_format(), config, lane=lane, state=state)

        engine = PlainEngine(llama(), train, torch.device("cpu"))
        loop.train(engine, loop.Work(objective=objectives.language_model, open_lane=open_lane), train, folder)
        shares = [float(row["data_wait_share"]) for row in history.read(folder)[1:]]
    return round(statistics.median(shares), 4)


COMPARISONS: Final[dict[str, Callable[[int], float]]] = {
    "step_vs_torch": step_vs_torch,
    "step_vs_trainer": step_vs_trainer,
    "sft_vs_trl": sft_vs_trl,
    "lora_vs_full": lora_vs_full,
    "lora_vs_trl": lora_vs_trl,
    "dpo_vs_trl": dpo_vs_trl,
    "ray_vs_torchrun": ray_vs_torchrun,
    "data_wait": data_wait,
}


if __name__ == "__main__":
    from benchmarks import training  # noqa: PLW0406 (the name under which workers find the pickled functions)

    sys.exit(entry.run("python -m benchmarks.training", training.main))
