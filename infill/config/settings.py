"""What each stage can be told: frozen, keyword-only dataclasses; the documentation stands under each field."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from infill.context import CANDIDATES
from infill.fim import SplitConfig
from infill.storage import LOCATION, PATHS

EXECUTION: Final[Mapping[str, bool]] = {"execution": True}
"""Metadata of a field that says where or how fast a stage runs, not what it makes: no part of an artifact's key."""

PERMISSIVE_LICENCES: Final = (
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "PSF-2.0",
    "Python-2.0",
    "Unlicense",
    "Zlib",
)
"""SPDX identifiers without copyleft; a choice of ours, narrower than the Blue Oak list."""

SENSITIVE_KINDS: Final = ("private_key", "token", "password", "email", "ip_address", "author")
"""Secrets and personal data that the corpus stage knows how to replace."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_seed(seed: int) -> None:
    _check(0 <= seed < 2**32, f"a seed must be between 0 and {2**32 - 1}")  # what numpy and PyTorch both take


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    sources: tuple[str, ...] = field(default=("packages:",), metadata=LOCATION)
    """Where the code comes from: `dir:/path` (a folder of repositories), `git:/path@revision` (Git repositories at a
    revision, without a checkout), `archive:/path` (source archives), `parquet:URI` (tables of files), or `packages:`
    (installed distributions)."""
    columns: tuple[str, ...] = ()
    """What the columns of `parquet:` sources are called: a data set (`the_stack_v2`, `the_stack`), or ROLE=COLUMN for
    the roles repo, path, content, blob, encoding, size, licence, commit, date and files; a later entry counts."""
    blobs: str = field(default="", metadata=LOCATION)
    """Where objects with the content lie that `parquet:` sources only name (`s3://softwareheritage/content`)."""
    max_repository_files: int = 500_000
    """A Git repository or an archive with more files is removed whole: a few objects can name billions."""
    max_archive_bytes: int = 4_000_000_000
    """A source archive that unpacks to more is removed whole. Linux unpacks to 1.6 GB."""
    max_archive_ratio: float = 200.0
    """A source archive that unpacks to more than this many times its size is removed whole, from 16 MB on; source code
    is packed by 4 to 20."""
    licences: tuple[str, ...] = PERMISSIVE_LICENCES
    """SPDX identifiers that may be trained on; everything else is removed with its licence as the reason."""
    opt_out: str = field(default="", metadata=LOCATION)
    """A TOML file of what owners asked to be left out: `[[opt_out]]` tables with `repository`, `path`, `reason`."""
    max_file_bytes: int = 1_000_000
    """A larger file is removed. OpenCoder allows 3 MB, The Stack v2 10 MB."""
    max_line_chars: int = 1_000
    """A file with a longer line is removed (BigCode, OpenCoder: 1,000)."""
    max_mean_line_chars: float = 100.0
    """A file with a longer mean line is removed (BigCode, OpenCoder: 100)."""
    min_alphanumeric: float = 0.25
    """A file with a smaller share of letters and digits is removed (BigCode: 0.25)."""
    redact: tuple[str, ...] = SENSITIVE_KINDS
    """What is replaced by placeholders: `private_key`, `token`, `password`, `email`, `ip_address`, `author` (names in
    author lines; the holder in a copyright notice stays); empty replaces nothing."""
    max_data_bytes: int = 20_000
    """The size limit of JSON, YAML, TOML, XML and INI files: small ones configure, large ones are data."""
    languages: tuple[str, ...] = ()
    """Keep only these languages ("python", "c_sharp" ...); empty keeps every language that is known."""
    max_total_bytes: int = 0
    """Read at most this many bytes: whole repositories in the order of their hash, each that fits; 0 is no limit."""
    near_duplicate_similarity: float = 0.7
    """A document is removed when a kept one has at least this Jaccard similarity of 5-grams of words (BigCode: 0.7);
    0 keeps near-duplicates."""
    split_similarity: float = 0.6
    """No two documents with at least this similarity are in different splits; 0 does not look."""
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
    """Text per parquet file; it bounds the memory of a worker and is the unit of work that a resumed run re-uses."""
    runtime: str = field(default="local", metadata=EXECUTION)
    """`local`: threads of this process; `ray`: Ray Data, on the cluster of RAY_ADDRESS where that is set."""
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
        _check(self.runtime in {"local", "ray"}, f"corpus.runtime {self.runtime!r} is neither local nor ray")
        _check(self.validation_share >= 0 and self.test_share >= 0, "corpus shares must not be negative")
        _check(
            self.validation_share + self.test_share < 1,
            "corpus.validation_share + test_share leaves nothing to train on",
        )


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    vocab_size: int = 49_152
    """Entries including the 32 reserved special tokens. Mellum and StarCoder: 49,152."""
    max_bytes: int = 100_000_000
    """Train on a sample of at most this many bytes of the train split."""
    base_model: str = field(default="", metadata=LOCATION)
    """Take tokenizer and FIM tokens from this base (a Hugging Face folder, a .gguf file or package:NAME==VERSION)
    instead of training one."""
    add_fim: bool = False
    """Give a base without FIM tokens some: its unused special tokens, or new ones."""
    seed: int = 0
    """Seed of the sample."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(self.vocab_size >= 288, "tokenizer.vocab_size must hold 256 bytes and 32 reserved tokens: at least 288")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Llama-style decoder. Defaults are the published Mellum-4b (header of its GGUF; see docs)."""

    layers: int = 30
    """Decoder blocks."""
    width: int = 3_072
    """Width of the residual stream."""
    mlp_width: int = 8_256
    """Width inside the MLP."""
    heads: int = 24
    """Attention heads; the width must be a multiple of them."""
    kv_heads: int = 24
    """Heads of keys and values; fewer make the KV cache smaller."""
    context_length: int = 8_192
    """Prompt and completion together, in tokens, at most."""
    rope_base: float = 500_000.0
    """Base of the rotary position embedding."""
    norm_eps: float = 1e-6
    """Epsilon of RMSNorm."""
    tie_embeddings: bool = False
    """Whether the output layer shares the embedding's weights."""

    def __post_init__(self) -> None:
        _check(self.width % self.heads == 0, f"model.width {self.width} is not a multiple of model.heads {self.heads}")
        _check(
            self.heads % self.kv_heads == 0,
            f"model.heads {self.heads} is not a multiple of model.kv_heads {self.kv_heads}",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What the three objectives share: optimiser, schedule, batch, precision, faults."""

    steps: int = 1_000
    """Optimiser steps."""
    batch_tokens: int = 16_384
    """Positions per optimiser step over all workers."""
    micro_batch_tokens: int = 4_096
    """Positions per forward pass of one worker; the rest is gradient accumulation. At least the context length."""
    learning_rate: float = 1e-3
    """Highest learning rate, after the warm-up."""
    warmup_steps: int = 50
    """Steps in which the rate rises linearly from zero."""
    decay_share: float = 0.2
    """Last share of the steps, in which the rate falls linearly to zero (warm-up, stable, decay: arXiv 2404.06395)."""
    weight_decay: float = 0.1
    """On matrices only. With the betas and the clipping below as in Llama 2 (arXiv 2307.09288, section 2.2)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    lora_rank: int = 0
    """Train matrices of this rank beside the frozen weights (LoRA, arXiv 2106.09685); 0 trains all weights."""
    lora_alpha: int = 0
    """Their product is scaled by this over the rank; 0 is the rank."""
    lora_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """The layers that get them."""
    lora_rows: bool = True
    """Train the embedding's rows of the control tokens beside them."""
    lora_start: str = field(default="", metadata=LOCATION)
    """Go on from this adapter (a folder, as training with lora_rank writes it), which must belong to the same base."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 on a GPU, fp32 on a CPU (where bf16 is emulated, 80 times slower)."""
    launcher: str = field(default="ray", metadata=EXECUTION)
    """`ray`: Ray Train workers with DeepSpeed engines; `local`: one plain process, for a single GPU at a desk."""
    recompute: bool = field(default=False, metadata=EXECUTION)
    """Keep a layer's input alone and compute the layer again in the backward pass: a third slower, far less memory."""
    workers: int = field(default=1, metadata=EXECUTION)
    """Ray Train workers, one per GPU; on a CPU each takes its share of the cores."""
    min_workers: int = field(default=0, metadata=EXECUTION)
    """Go on with fewer workers, down to so many, where the cluster has no more; 0 insists on `workers`."""
    max_failures: int = field(default=3, metadata=EXECUTION)
    """Times that lost workers are started again from the same checkpoint before the run is given up: of nodes that go
    now and then a training of weeks sees many."""
    timeout_s: float = field(default=600.0, metadata=EXECUTION)
    """A worker that has not started, or not ended a step, after so many seconds is ended with its stacks as reason."""
    log_every: int = 10
    """Steps between two rows of the history."""
    checkpoint_every: int = 100
    """Optimiser steps between checkpoints."""
    keep_checkpoints: int = field(default=2, metadata=EXECUTION)
    """The newest so many checkpoints are kept while the training runs."""
    keep_every: int = field(default=0, metadata=EXECUTION)
    """Beside them, those whose step is a multiple of this; 0 is none."""
    keep_best: int = field(default=0, metadata=EXECUTION)
    """Beside them, so many with the lowest bits per byte (or loss) on held-out data."""
    validation_batches: int = 8
    """Micro-batches of the validation split behind each validation loss; 0 is none."""
    sample_every: int = field(default=100, metadata=EXECUTION)
    """Optimiser steps between completions of the same few holes, which show what is learned; 0 is never."""
    sample_holes: int = field(default=4, metadata=EXECUTION)
    """Fixed holes that are completed to show progress."""
    spike: float = 3.0
    """A batch whose loss is no number, or so many nats above the running mean, is tried again, then skipped."""
    norm_spike: float = 100.0
    """The same for a gradient norm so many times the running mean."""
    max_skipped: int = 10
    """Skipped batches after which the run stops."""
    seed: int = 0
    """Seed of initial weights, order and cuts."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(self.steps > 0, "steps must be positive")
        _check(
            self.batch_tokens % self.micro_batch_tokens == 0, "batch_tokens must be a multiple of micro_batch_tokens"
        )
        _check(self.precision in {"auto", "fp32", "bf16"}, f"precision {self.precision!r} is none of auto, fp32, bf16")
        _check(self.launcher in {"ray", "local"}, f"launcher {self.launcher!r} is neither ray nor local")
        _check(self.workers >= 1, "workers must be at least 1")
        _check(0 <= self.min_workers <= self.workers, "min_workers must lie between 0 and workers")
        _check(self.launcher == "ray" or self.workers == 1, "launcher local is one process: set workers to 1")
        _check(
            self.workers <= self.batch_tokens // self.micro_batch_tokens,
            f"{self.workers} workers need a batch of as many micro-batches: raise batch_tokens",
        )
        _check(0 <= self.decay_share <= 1, "decay_share must lie between 0 and 1")
        _check(self.log_every > 0 and self.checkpoint_every > 0, "log_every and checkpoint_every must be positive")
        _check(self.keep_checkpoints >= 1, "keep_checkpoints must be at least 1")
        _check(self.keep_every >= 0 and self.keep_best >= 0, "keep_every and keep_best must not be negative")
        _check(self.spike > 0 and self.norm_spike > 1, "spike must be positive, norm_spike above 1")
        _check(self.sample_every >= 0, "sample_every must not be negative")
        _check(self.sample_holes >= 1, "sample_holes must be at least 1; sample_every=0 shows none")
        _check(self.max_skipped >= 0, "max_skipped must not be negative")
        _check(self.lora_rank >= 0 and self.lora_alpha >= 0, "lora_rank and lora_alpha must not be negative")
        _check(bool(self.lora_modules) or not self.lora_rank, "lora_modules must name a layer")
        _check(bool(self.lora_rank) or not self.lora_start, "lora_start needs lora_rank, that of the adapter")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fim_rate: float = 0.5
    """Share of the files that become suffix-prefix-middle (Mellum: half of the files in each chunk)."""
    path_rate: float = 0.5
    """Share of the other files that start with their path (StarCoder2, arXiv 2402.19173: half)."""
    mixture: tuple[tuple[str, float], ...] = ()
    """How often a document is read in an epoch, on average, by language or by repository; 1 where nothing is said."""
    base_model: str = field(default="", metadata=LOCATION)
    """Start from this base (a Hugging Face folder, a .gguf file or package:NAME==VERSION): it is imported as it is."""
    add_fim: bool = False
    """As in TokenizerConfig."""
    adapter: str = field(default="", metadata=LOCATION)
    """Merge this LoRA adapter (a folder, as training with lora_rank writes it) into the base before anything else."""
    continued: bool = False
    """Train the base further on the corpus, infilling included, instead of importing it as it is."""
    licence: str = "other"
    """What the model is licensed under, as the Hugging Face hub names it; `other` leaves that to its owner."""

    def __post_init__(self) -> None:
        _check(0 <= self.fim_rate <= 1 and 0 <= self.path_rate <= 1, "fim_rate and path_rate lie between 0 and 1")
        _check(all(weight >= 0 for _, weight in self.mixture), "mixture weights must not be negative")
        _check(bool(self.base_model) or not self.adapter, "pretrain.adapter needs the base_model that it belongs to")
        _check(
            bool(self.base_model) or self.train.micro_batch_tokens >= self.model.context_length,
            "micro_batch_tokens must be at least the model's context_length",
        )


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    holes: int = 20_000
    """Holes over all train files."""
    validation_holes: int = 200
    """Holes of the validation split."""
    test_holes: int = 200
    """Holes of the test split."""
    split: SplitConfig = field(default_factory=SplitConfig)
    strategies: tuple[tuple[str, float], ...] = (
        ("infill", 0.4),
        ("rag", 0.2),
        ("iou", 0.15),
        ("path_distance", 0.15),
        ("none", 0.1),
    )
    """Context strategies of the train split with their probabilities: what is served, the paper's three, and nothing.
    The paper's own mixture is unknown."""
    evaluation_strategy: str = "infill"
    """Context strategy of the validation and test splits."""
    context_items: int = CANDIDATES
    """Candidates a hole keeps; how many enter the prompt is the budget's affair."""
    context_chars: int = 32_768
    """Text of a hole's candidates in all, at most: what the context length can hold."""
    seed: int = 0
    """Seed of holes and strategies."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(self.holes > 0, "examples.holes must be positive")
        _check(self.validation_holes >= 0 and self.test_holes >= 0, "examples: held-out holes must not be negative")
        _check(min(self.context_items, self.context_chars) >= 0, "examples: context limits must not be negative")
        shares = [share for _, share in self.strategies]
        _check(min(shares, default=-1) >= 0 and sum(shares) > 0, "examples.strategies must give probabilities")


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    train: TrainConfig = field(default_factory=TrainConfig)
    max_prompt_tokens: int = 0
    """Prompts are held to this many tokens; 0 is what the context length leaves beside the middle."""
    prompt_lengths: tuple[tuple[int, float], ...] = ()
    """Shorter limits in tokens, with their probabilities: each example is held to one of them, so that short prompts,
    which cost less and which editors send for small files, are learned beside long ones."""

    def __post_init__(self) -> None:
        lengths = [length for length, _ in self.prompt_lengths]
        shares = [share for _, share in self.prompt_lengths]
        _check(min(lengths, default=1) > 0, "sft.prompt_lengths must be positive")
        _check(not shares or (min(shares) >= 0 and sum(shares) > 0), "sft.prompt_lengths must give probabilities")


@dataclass(frozen=True, kw_only=True)
class PreferencesConfig:
    holes: int = 2_000
    """Train holes that are sampled for."""
    temperatures: tuple[float, ...] = (0.2, 0.6, 1.0)
    """Sampling temperatures."""
    samples: int = 2
    """Samples per hole and temperature."""
    max_new_tokens: int = 128
    """Longest candidate, in tokens."""
    judge: str = "rules"
    """`rules`, or the base URL of an OpenAI-compatible server (its key in INFILL_JUDGE_API_KEY)."""
    judge_model: str = ""
    """Name of the judging model at that URL."""
    min_margin: float = 0.1
    """Least difference of the judge's scores (0 to 1) for a pair."""
    max_prompt_tokens: int = 1_024
    """Prompts are held to this many tokens."""
    seed: int = 0
    """Seed of the samples."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(self.holes > 0 and self.samples > 0, "preferences.holes and preferences.samples must be positive")
        _check(min(self.temperatures, default=-1) >= 0, "preferences.temperatures must be at least one, none negative")
        _check(self.max_new_tokens > 0, "preferences.max_new_tokens must be positive")


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    train: TrainConfig = field(default_factory=TrainConfig)
    beta: float = 0.1
    """Strength of the tie to the reference (DPO, arXiv 2305.18290, eq. 7)."""
    sft_weight: float = 0.0
    """Weight of the negative log-likelihood of the chosen middle (RPO, arXiv 2404.19733); 0 is plain DPO."""
    max_prompt_tokens: int = 1_024
    """As in PreferencesConfig, so that the pairs are judged where they were sampled."""

    def __post_init__(self) -> None:
        _check(self.beta > 0, "dpo.beta must be positive")
        _check(not self.train.lora_start, "dpo.train.lora_start: preferences are learned from the model that is given")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    holes: int = 200
    """Test holes, the first in order of their id."""
    max_new_tokens: int = 128
    """Longest completion, in tokens."""
    max_prompt_tokens: int = 1_024
    """Prompts are held to this many tokens."""
    bootstrap: int = 1_000
    """Resamples behind each 95 % interval."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(
            self.holes > 0 and self.max_new_tokens > 0, "evaluate.holes and evaluate.max_new_tokens must be positive"
        )
        _check(self.bootstrap > 0, "evaluate.bootstrap must be positive")


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    name: str = "infill"
    """Registered model in MLflow."""
    metric: str = "kk"
    """The winner has the highest value; ties go to the earlier stage."""
    floors: tuple[tuple[str, float], ...] = ()
    """Metric and least value: what the winner must reach whether or not there is a champion."""
    ceilings: tuple[tuple[str, float], ...] = ()
    """Metric and highest value, for those of which less is better, such as over_generation."""
    max_regression: float = 0.0
    """The paired 95 % interval of winner minus champion must not lie wholly below minus this."""
    bootstrap: int = 1_000
    """Resamples behind that interval."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check(
            re.fullmatch(r"[\w.\- ]+", self.name) is not None,
            f"register.name {self.name!r} may hold letters, digits, spaces and _.- only",
        )
        _check(self.max_regression >= 0, "register.max_regression must not be negative")
        _check(self.bootstrap > 0, "register.bootstrap must be positive")


@dataclass(frozen=True, kw_only=True)
class DeployConfig:
    max_prompt_tokens: int = 1_024
    """Prompts are held to this many tokens."""
    max_new_tokens: int = 128
    """Longest completion, in tokens."""
    release: str = ""
    """Release of charts/infill-serving to deploy to. Empty is `completions` where stages run on a cluster, elsewhere no
    cluster: then the deployment record is all."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    title: str = "Infill"
    """Title of the page."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything a pipeline run is told; one field a stage."""

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
