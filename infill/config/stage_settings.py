"""The settings of each stage: frozen, keyword-only dataclasses with the documentation under each field."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from infill.context import CANDIDATES
from infill.fim import SplitConfig
from infill.storage import LOCATION, PATHS

EXECUTION: Final[Mapping[str, bool]] = {"execution": True}
"""Metadata of a field that sets where or how fast a stage runs, not its result: not part of an artifact's key."""

PERMISSIVE_LICENCES: Final = (
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "PSF-2.0",
    "Python-2.0",
    "Unlicense",
    "Zlib",
)
"""SPDX identifiers without copyleft; our own choice, narrower than the Blue Oak list."""

SENSITIVE_KINDS: Final = ("private_key", "token", "password", "email", "ip_address", "author")
"""Secrets and personal data that the corpus stage knows how to replace."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_seed(seed: int) -> None:
    _check(0 <= seed < 2**32, f"a seed must be between 0 and {2**32 - 1}, got {seed}")  # the range of numpy and PyTorch


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    sources: tuple[str, ...] = field(default=("packages:",), metadata=LOCATION)
    """Sources of the code: `dir:/path` (a folder of repositories), `git:/path@revision` (Git repositories at a
    revision, without a checkout), `archive:/path` (source archives), `parquet:URI` (tables of files), or `packages:`
    (installed distributions)."""
    columns: tuple[str, ...] = ()
    """Names of the columns of `parquet:` sources: a data set (`the_stack_v2`, `the_stack`), or ROLE=COLUMN for
    the roles repo, path, content, blob, encoding, size, licence, commit, date and files; a later entry wins."""
    blobs: str = field(default="", metadata=LOCATION)
    """Store of the contents that `parquet:` sources only name (`s3://softwareheritage/content`)."""
    max_repository_files: int = 500_000
    """A Git repository or an archive with more files is removed whole: a few objects can name billions."""
    max_archive_bytes: int = 4_000_000_000
    """A source archive that unpacks to more is removed whole. Linux unpacks to 1.6 GB."""
    max_archive_ratio: float = 200.0
    """A source archive that unpacks to more than this many times its size is removed whole, from 16 MB on; source code
    is packed by 4 to 20."""
    licences: tuple[str, ...] = PERMISSIVE_LICENCES
    """SPDX identifiers of licences that allow training; everything else is removed with its licence as the reason."""
    opt_out: str = field(default="", metadata=LOCATION)
    """A TOML file of what owners asked to be left out, which `infill corpus remove` writes. Commands take the list in
    INFILL_OPT_OUT, or the user's own, where none is named; copies in other repositories are left out, too."""
    max_file_bytes: int = 1_000_000
    """A larger file is removed. OpenCoder allows 3 MB, The Stack v2 10 MB."""
    max_line_chars: int = 1_000
    """A file with a longer line is removed (BigCode, OpenCoder: 1,000), but for languages of prose and markup."""
    max_mean_line_chars: float = 100.0
    """A file with a longer mean line is removed (BigCode, OpenCoder: 100), with the same exceptions."""
    min_alphanumeric: float = 0.25
    """A file with a smaller share of letters and digits is removed (BigCode: 0.25); 0.5 for JSON and YAML."""
    redact: tuple[str, ...] = SENSITIVE_KINDS
    """Replaced by placeholders: `private_key`, `token`, `password`, `email`, `ip_address`, `author` (names in
    author lines; the holder in a copyright notice stays); empty replaces nothing."""
    max_data_bytes: int = 20_000
    """The size limit of JSON, YAML, TOML, XML and INI files: small ones configure, large ones are data."""
    languages: tuple[str, ...] = ()
    """Keep only these languages ("python", "c_sharp" ...); empty keeps every known language."""
    max_total_bytes: int = 0
    """Read at most this many bytes: whole repositories in the order of their hash, each one that fits; 0 means no
    limit."""
    near_duplicate_similarity: float = 0.7
    """A document is removed if a kept one has at least this Jaccard similarity of 5-grams of words (BigCode: 0.7); 0
    keeps near-duplicates."""
    split_similarity: float = 0.6
    """Documents with at least this similarity are never in different splits; 0 means no check."""
    earlier: tuple[str, ...] = field(default=(), metadata=PATHS)
    """Folders of finished corpora that this one extends: what has a copy in them is removed, and splits agree."""
    benchmarks: tuple[str, ...] = field(default=(), metadata=PATHS)
    """Folders or files of benchmarks (JSON lines, Parquet, source files, artifacts with held-out data): a document that
    holds a passage of one is removed. The folder in INFILL_BENCH_DIR is always one."""
    validation_share: float = 0.05
    """Share of repositories, by hash of the name, for validation loss."""
    test_share: float = 0.05
    """Share of repositories, by hash of the name, for evaluation."""
    shard_bytes: int = 64_000_000
    """Bytes of text per parquet file. It limits a worker's memory and is the unit of work that a resumed run reuses."""
    runtime: str = field(default="local", metadata=EXECUTION)
    """`local`: threads of this process; `ray`: Ray Data, on the cluster at RAY_ADDRESS if that is set."""
    seed: int = 0
    """Seed of the splits and of the choice within `max_total_bytes`."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(bool(self.sources), "corpus.sources is empty: name at least one source")
        _check(self.max_repository_files > 0, "corpus.max_repository_files must be positive")
        _check(self.max_archive_bytes > 0, "corpus.max_archive_bytes must be positive")
        _check(self.max_archive_ratio >= 1, "corpus.max_archive_ratio must be at least 1")
        for name in ("near_duplicate_similarity", "split_similarity"):
            value = getattr(self, name)
            _check(value == 0 or 0.5 <= value <= 1, f"corpus.{name} must be 0 or between 0.5 and 1, got {value:g}")
        _check(
            self.split_similarity <= (self.near_duplicate_similarity or 1),
            "corpus.split_similarity must not be above corpus.near_duplicate_similarity",
        )
        _check(self.shard_bytes > 0, "corpus.shard_bytes must be positive")
        for kind in self.redact:
            known = ", ".join(SENSITIVE_KINDS)
            _check(kind in SENSITIVE_KINDS, f"corpus.redact: unknown kind {kind!r}; choose from {known}, or none")
        _check(self.runtime in {"local", "ray"}, f"corpus.runtime must be local or ray, got {self.runtime!r}")
        _check(
            self.validation_share >= 0 and self.test_share >= 0,
            "corpus.validation_share and test_share must not be negative",
        )
        _check(
            self.validation_share + self.test_share < 1,
            "corpus.validation_share and test_share must sum to less than 1, else nothing is left to train on",
        )


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    vocab_size: int = 49_152
    """Entries including the 32 reserved special tokens. Mellum and StarCoder: 49,152."""
    max_bytes: int = 100_000_000
    """Train on a sample of at most this many bytes of the train split."""
    language_exponent: float = 0.7
    """A language's share of the sample grows with its bytes to this power: 1 is its share of the corpus, 0 the same for
    all. Multilingual BERT: 0.7."""
    base_model: str = field(default="", metadata=LOCATION)
    """Take tokenizer and FIM tokens from this base (a Hugging Face folder, a .gguf file or package:NAME==VERSION)
    instead of training one."""
    add_fim: bool = False
    """Assign FIM tokens to a base without them: its unused special tokens, or new ones."""
    seed: int = 0
    """Seed of the sample."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(self.vocab_size >= 288, "tokenizer.vocab_size must be at least 288: 256 bytes and 32 reserved tokens")
        exponent = self.language_exponent
        _check(0 <= exponent <= 1, f"tokenizer.language_exponent must be between 0 and 1, got {exponent:g}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Llama-style decoder. The defaults are those of the published Mellum-4b (header of its GGUF; see docs)."""

    layers: int = 30
    """Decoder blocks."""
    width: int = 3_072
    """Width of the residual stream."""
    mlp_width: int = 8_256
    """Width inside the MLP."""
    heads: int = 24
    """Attention heads; the width must be a multiple of this number."""
    kv_heads: int = 24
    """Key and value heads; fewer make the KV cache smaller."""
    context_length: int = 8_192
    """Maximum length of prompt and completion together, in tokens."""
    rope_base: float = 500_000.0
    """Base of the rotary position embedding."""
    norm_eps: float = 1e-6
    """Epsilon of RMSNorm."""
    tie_embeddings: bool = False
    """Share the embedding's weights with the output layer."""

    def __post_init__(self) -> None:
        _check(
            self.width % self.heads == 0,
            f"model.width must be a multiple of model.heads ({self.heads}), got {self.width}",
        )
        _check(
            self.heads % self.kv_heads == 0,
            f"model.heads must be a multiple of model.kv_heads ({self.kv_heads}), got {self.heads}",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings shared by the three objectives: optimiser, schedule, batch, precision, faults."""

    steps: int = 1_000
    """Optimiser steps."""
    batch_tokens: int = 16_384
    """Positions per optimiser step over all workers."""
    micro_batch_tokens: int = 4_096
    """Positions per forward pass of one worker; the rest is gradient accumulation. At least the context length."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached after the warm-up."""
    warmup_steps: int = 50
    """Steps over which the rate rises linearly from zero."""
    decay_share: float = 0.2
    """Share of the steps, at the end, over which the rate falls linearly to zero (warm-up, stable, decay: arXiv
    2404.06395)."""
    weight_decay: float = 0.1
    """Weight decay, applied to matrices only. The value, `betas` and `max_grad_norm` are those of Llama 2 (arXiv
    2307.09288, section 2.2)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """The two decay rates of AdamW's moments."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to this one."""
    lora_rank: int = 0
    """Train matrices of this rank next to the frozen weights (LoRA, arXiv 2106.09685); 0 trains all weights."""
    lora_alpha: int = 0
    """The product of the LoRA matrices is scaled by `lora_alpha / lora_rank`; 0 means the rank."""
    lora_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """The layers that get LoRA matrices."""
    lora_rows: bool = True
    """Train the embedding rows of the control tokens as well."""
    lora_start: str = field(default="", metadata=LOCATION)
    """Continue from this adapter (a folder that training with lora_rank wrote), which must belong to the same base."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 on a GPU, fp32 on a CPU (which emulates bf16, 80 times slower)."""
    launcher: str = field(default="ray", metadata=EXECUTION)
    """`ray`: Ray Train workers with DeepSpeed engines; `local`: one plain process, for a single GPU."""
    recompute: bool = field(default=False, metadata=EXECUTION)
    """Keep only each layer's input and recompute the layer in the backward pass: a third slower, far less memory."""
    workers: int = field(default=1, metadata=EXECUTION)
    """Ray Train workers, one per GPU; on a CPU each takes its share of the cores."""
    min_workers: int = field(default=0, metadata=EXECUTION)
    """Continue with fewer workers, but at least this many, if the cluster has no more; 0 requires `workers`."""
    max_failures: int = field(default=3, metadata=EXECUTION)
    """Maximum number of restarts after lost workers; the count begins again after each new checkpoint, since a
    training of weeks loses many nodes."""
    timeout_s: float = field(default=600.0, metadata=EXECUTION)
    """Seconds after which a worker that has not started, or not finished a step, is stopped; the error shows its
    stacks."""
    log_every: int = 10
    """Steps between two rows of the history."""
    checkpoint_every: int = 100
    """Optimiser steps between checkpoints."""
    keep_checkpoints: int = field(default=2, metadata=EXECUTION)
    """Number of newest checkpoints that are kept while the training runs."""
    keep_every: int = field(default=0, metadata=EXECUTION)
    """Also keep the checkpoints whose step is a multiple of this; 0 means none."""
    keep_best: int = field(default=0, metadata=EXECUTION)
    """Also keep this many checkpoints with the lowest bits per byte (or loss) on held-out data."""
    validation_batches: int = 8
    """Micro-batches of the validation split from which each validation loss is computed; 0 means no validation."""
    sample_every: int = field(default=100, metadata=EXECUTION)
    """Optimiser steps between completions of the same few holes, which show progress; 0 means never."""
    sample_holes: int = field(default=4, metadata=EXECUTION)
    """Number of holes that are completed to show progress."""
    spike: float = 3.0
    """A batch whose loss is not finite, or more than this many nats above the running mean, is retried, then
    skipped."""
    norm_spike: float = 100.0
    """The same for a gradient norm of more than this many times the running mean."""
    max_skipped: int = 10
    """Maximum number of skipped batches; the run stops with an error at the next one."""
    seed: int = 0
    """Seed of initial weights, data order and FIM splits."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(self.steps > 0, "steps must be positive")
        _check(
            self.batch_tokens % self.micro_batch_tokens == 0, "batch_tokens must be a multiple of micro_batch_tokens"
        )
        _check(
            self.precision in {"auto", "fp32", "bf16"}, f"precision must be auto, fp32 or bf16, got {self.precision!r}"
        )
        _check(self.launcher in {"ray", "local"}, f"launcher must be ray or local, got {self.launcher!r}")
        _check(self.workers >= 1, "workers must be at least 1")
        _check(0 <= self.min_workers <= self.workers, "min_workers must be between 0 and workers")
        _check(self.launcher == "ray" or self.workers == 1, "launcher local runs one process: set workers to 1")
        _check(
            self.workers <= self.batch_tokens // self.micro_batch_tokens,
            f"{self.workers} workers need a batch of at least {self.workers} micro-batches: raise batch_tokens",
        )
        _check(0 <= self.decay_share <= 1, "decay_share must be between 0 and 1")
        _check(self.log_every > 0 and self.checkpoint_every > 0, "log_every and checkpoint_every must be positive")
        _check(self.keep_checkpoints >= 1, "keep_checkpoints must be at least 1")
        _check(self.keep_every >= 0 and self.keep_best >= 0, "keep_every and keep_best must not be negative")
        _check(self.spike > 0 and self.norm_spike > 1, "spike must be positive, norm_spike above 1")
        _check(self.sample_every >= 0, "sample_every must not be negative")
        _check(self.sample_holes >= 1, "sample_holes must be at least 1; to complete none, set sample_every to 0")
        _check(self.max_skipped >= 0, "max_skipped must not be negative")
        _check(self.lora_rank >= 0 and self.lora_alpha >= 0, "lora_rank and lora_alpha must not be negative")
        _check(bool(self.lora_modules) or not self.lora_rank, "lora_modules must name at least one layer")
        _check(bool(self.lora_rank) or not self.lora_start, "lora_start needs lora_rank: set it to the adapter's rank")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fim_rate: float = 0.5
    """Share of the files that become suffix-prefix-middle (Mellum: half of the files in each chunk)."""
    path_rate: float = 0.5
    """Share of the other files that start with their path (StarCoder2, arXiv 2402.19173: half)."""
    repository_context: bool = False
    """Read files of a repository together, each after what it imports, as one document of up to the context's length
    (StarCoder2, DeepSeek-Coder); otherwise each file is a document."""
    mixture: tuple[tuple[str, float], ...] = ()
    """Average number of times that a document is read per epoch, by language or repository; 1 if neither is listed."""
    base_model: str = field(default="", metadata=LOCATION)
    """Start from this base (a Hugging Face folder, a .gguf file or package:NAME==VERSION), imported unchanged."""
    add_fim: bool = False
    """Assign FIM tokens to a base without them, as `tokenizer.add_fim` does; both must be the same."""
    adapter: str = field(default="", metadata=LOCATION)
    """Merge this LoRA adapter (a folder that training with lora_rank wrote) into the base first."""
    continued: bool = False
    """Train the base further on the corpus, infilling included, instead of importing it unchanged."""
    licence: str = "other"
    """The model's licence, as the Hugging Face hub names it; `other` leaves the choice to its owner."""

    def __post_init__(self) -> None:
        _check(0 <= self.fim_rate <= 1 and 0 <= self.path_rate <= 1, "fim_rate and path_rate must be between 0 and 1")
        _check(all(weight >= 0 for _, weight in self.mixture), "mixture weights must not be negative")
        _check(
            bool(self.base_model) or not self.adapter,
            "pretrain.adapter needs pretrain.base_model, the base that it belongs to",
        )
        _check(
            bool(self.base_model) or self.train.micro_batch_tokens >= self.model.context_length,
            "micro_batch_tokens must be at least the model's context_length",
        )


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    holes: int = 20_000
    """Number of holes of the train split."""
    validation_holes: int = 200
    """Number of holes of the validation split."""
    test_holes: int = 200
    """Number of holes of the test split."""
    split: SplitConfig = field(default_factory=SplitConfig)
    strategies: tuple[tuple[str, float], ...] = (
        ("infill", 0.4),
        ("rag", 0.2),
        ("iou", 0.15),
        ("path_distance", 0.15),
        ("none", 0.1),
    )
    """Context strategies of the train split with their probabilities: the one that is served, the paper's three, and
    no context. The paper's mixture is unknown."""
    evaluation_strategy: str = "infill"
    """Context strategy of the validation and test splits."""
    context_items: int = CANDIDATES
    """Context items kept per hole; the token budget decides how many of them enter the prompt."""
    context_chars: int = 32_768
    """Maximum characters of a hole's context items together; more than the context length can hold is useless."""
    seed: int = 0
    """Seed of holes and strategies."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(self.holes > 0, "examples.holes must be positive")
        _check(self.validation_holes >= 0 and self.test_holes >= 0, "examples: held-out holes must not be negative")
        _check(
            min(self.context_items, self.context_chars) >= 0,
            "examples.context_items and context_chars must not be negative",
        )
        shares = [share for _, share in self.strategies]
        _check(
            min(shares, default=-1) >= 0 and sum(shares) > 0,
            "examples.strategies needs probabilities, at least one above 0",
        )


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    train: TrainConfig = field(default_factory=TrainConfig)
    max_prompt_tokens: int = 0
    """Maximum tokens of a prompt; 0 means what the context length leaves after the middle."""
    prompt_lengths: tuple[tuple[int, float], ...] = ()
    """Shorter limits in tokens, with their probabilities: each example gets one of them, so that the model learns short
    prompts, which cost less and which editors send for small files, as well as long ones."""

    def __post_init__(self) -> None:
        lengths = [length for length, _ in self.prompt_lengths]
        shares = [share for _, share in self.prompt_lengths]
        _check(min(lengths, default=1) > 0, "sft.prompt_lengths must be positive")
        _check(
            not shares or (min(shares) >= 0 and sum(shares) > 0),
            "sft.prompt_lengths needs probabilities, at least one above 0",
        )


@dataclass(frozen=True, kw_only=True)
class PreferencesConfig:
    holes: int = 2_000
    """Train holes for which completions are sampled; 0: learn from feedback and ratings alone."""
    temperatures: tuple[float, ...] = (0.2, 0.6, 1.0)
    """Sampling temperatures."""
    samples: int = 2
    """Samples per hole and temperature."""
    max_new_tokens: int = 128
    """Maximum tokens of a candidate."""
    judge: str = "rules"
    """`rules`, or the base URL of an OpenAI-compatible server (its key in INFILL_JUDGE_API_KEY)."""
    judge_model: str = ""
    """Name of the judging model at that URL."""
    judge_tokens: int = 0
    """Tokens of requests and answers together after which the judge is not asked any more: the rules judge the
    remaining holes; 0: no limit."""
    judge_cost: float = 0.0
    """Cost, in the currency of judge_prices, after which the judge is not asked any more; 0: no limit."""
    judge_prices: tuple[float, float] = (0.0, 0.0)
    """Prices of a million tokens of requests and of a million tokens of answers."""
    feedback: str = field(default="", metadata=LOCATION)
    """Folder of a feedback dataset, which gives pairs of what users kept and what they were shown; empty: none."""
    ratings: str = field(default="", metadata=LOCATION)
    """Folder of a rating set of earlier preferences, which gives pairs that people chose; empty: none."""
    history: str = field(default="", metadata=LOCATION)
    """Holes that `infill benchmark build --train` cut from history, which give pairs of what a developer wrote and what
    the model writes; empty: none."""
    hard_negatives: int = 0
    """Rejected completions that are made up for each hole of the true middle: a stub, one that continues for too long,
    one that repeats the suffix, one with a wrong name of the project; at most 4."""
    min_margin: float = 0.1
    """Minimum difference between the judge's scores (0 to 1) of the two completions of a pair."""
    max_prompt_tokens: int = 1_024
    """Maximum tokens of a prompt."""
    seed: int = 0
    """Seed of the samples."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(self.samples > 0, "preferences.samples must be positive")
        _check(
            self.holes > 0 or bool(self.feedback or self.ratings),
            "preferences.holes must be positive, or 0 with preferences.feedback or preferences.ratings",
        )
        _check(self.holes >= 0, f"preferences.holes must not be negative, got {self.holes}")
        _check(min(self.temperatures, default=-1) >= 0, "preferences.temperatures needs at least one, none negative")
        _check(self.max_new_tokens > 0, "preferences.max_new_tokens must be positive")
        _check(0 <= self.hard_negatives <= 4, f"preferences.hard_negatives must be 0 to 4, got {self.hard_negatives}")
        _check(
            self.judge_tokens >= 0 and self.judge_cost >= 0 and min(self.judge_prices) >= 0,
            "preferences.judge_tokens, preferences.judge_cost and preferences.judge_prices must not be negative",
        )
        _check(
            not self.judge_cost or sum(self.judge_prices) > 0,
            "preferences.judge_cost needs the prices of tokens, preferences.judge_prices",
        )


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    train: TrainConfig = field(default_factory=TrainConfig)
    beta: float = 0.1
    """Strength of the tie to the reference (DPO, arXiv 2305.18290, eq. 7)."""
    sft_weight: float = 0.0
    """Weight of the negative log-likelihood of the chosen middle (RPO, arXiv 2404.19733); 0 is plain DPO."""
    length_normalised: bool = False
    """Compare log-probabilities per token (arXiv 2411.15124), so that the length of a completion counts for nothing;
    the margins are smaller by the number of tokens, so beta must be larger, such as 5."""
    max_prompt_tokens: int = 1_024
    """Maximum tokens of a prompt; as in PreferencesConfig, so that training sees the prompts that were sampled from."""

    def __post_init__(self) -> None:
        _check(self.beta > 0, "dpo.beta must be positive")
        _check(not self.train.lora_start, "dpo.train.lora_start must be empty: DPO starts from its input model")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    holes: int = 200
    """Number of test holes: the first in the order of their id."""
    max_new_tokens: int = 128
    """Maximum tokens of a completion."""
    max_prompt_tokens: int = 1_024
    """Maximum tokens of a prompt."""
    bootstrap: int = 1_000
    """Bootstrap resamples for each 95 % interval."""
    seed: int = 0
    """Seed of the bootstrap."""
    latency_holes: int = 0
    """Number of holes completed once more, one at a time, to measure the time of a completion. With more than 0, two
    evaluations of the same model differ in that time."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(
            self.holes > 0 and self.max_new_tokens > 0, "evaluate.holes and evaluate.max_new_tokens must be positive"
        )
        _check(self.latency_holes >= 0, f"evaluate.latency_holes must not be negative, got {self.latency_holes}")
        _check(self.bootstrap > 0, "evaluate.bootstrap must be positive")


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    name: str = "infill"
    """Name of the registered model in MLflow."""
    metric: str = "kk"
    """Metric by which the winner is chosen: the highest value wins, ties go to the earlier stage."""
    floors: tuple[tuple[str, float], ...] = ()
    """Metrics with the minimum that the winner must reach, whether or not there is a champion."""
    ceilings: tuple[tuple[str, float], ...] = ()
    """Metrics with the maximum that the winner must not exceed; for those where less is better, such as
    over_generation."""
    max_regression: float = 0.0
    """Tolerated loss against the champion: the paired 95 % interval of winner minus champion must reach up to minus
    this value or above."""
    language_holes: int = 30
    """Minimum holes of a language for a comparison with the champion in that language alone; 0 compares none. A release
    is refused if a language loses more than max_regression and chance does not explain it: McNemar's test for shares,
    Wilcoxon's for other metrics, at 5 % after Holm's correction for the number of languages."""
    max_latency_ms: float = 0.0
    """Maximum of the 90th percentile of a completion's time in milliseconds, as measured with evaluate.latency_holes;
    0: no limit."""
    latency_machine: str = ""
    """Machine on which max_latency_ms holds, as the evaluation's record names it; a time measured on another one does
    not decide. Empty: any machine."""
    canary: bool = False
    """Whether a winner becomes the candidate of the registered model instead of its champion; `infill canary decide`
    then promotes it or rolls it back. The first model of all becomes the champion in any case."""
    bootstrap: int = 1_000
    """Bootstrap resamples for the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(
            re.fullmatch(r"[\w.\- ]+", self.name) is not None,
            f"register.name may contain only letters, digits, spaces and _.-, got {self.name!r}",
        )
        _check(self.max_regression >= 0, "register.max_regression must not be negative")
        _check(self.language_holes >= 0, f"register.language_holes must not be negative, got {self.language_holes}")
        _check(self.max_latency_ms >= 0, f"register.max_latency_ms must not be negative, got {self.max_latency_ms}")
        _check(self.bootstrap > 0, "register.bootstrap must be positive")


@dataclass(frozen=True, kw_only=True)
class DeployConfig:
    max_prompt_tokens: int = 1_024
    """Maximum tokens of a prompt."""
    max_new_tokens: int = 128
    """Maximum tokens of a completion."""
    release: str = ""
    """Release of charts/infill-serving to deploy to. Empty means `completions` if stages run on a cluster; on one
    machine only the deployment record is written."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    title: str = "Infill"
    """Title of the page."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All settings of a pipeline run: one field per stage."""

    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    pretrain: PretrainConfig
    examples: ExamplesConfig
    sft: SftConfig
    preferences: PreferencesConfig
    dpo: DpoConfig
    evaluate: EvaluateConfig
    register: RegisterConfig
    deploy: DeployConfig = field(default_factory=DeployConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
