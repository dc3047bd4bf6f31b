"""The predictor's settings."""

from dataclasses import dataclass, field
from typing import Final

from infill.llama_cpp import GGUF_TYPE, GGUF_TYPES
from infill.storage import LOCATION

ENGINES: Final = ("auto", "transformers", "llama.cpp")


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """The command-line options of the predictor."""

    model: str = field(metadata=LOCATION)
    """URI of the model folder."""
    deployment: str = field(default="", metadata=LOCATION)
    """URI of a deployment record; the model must then have the digest that the record names."""
    name: str = "infill"
    """Name of the model in answers."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8081
    """Port to listen on."""
    engine: str = "auto"
    """`llama.cpp` (CPU), `transformers`, or `auto`: llama.cpp on a CPU where it is installed and can read the model."""
    gguf_type: str = GGUF_TYPE
    """Type in which llama.cpp stores the matrices: `f16`, `f32`, `bf16` or `q8_0`."""
    draft_tokens: int = 0
    """Tokens that are copied at once from the prompt as a draft of what comes next and then checked, which changes no
    answer; 0 makes no drafts. On one core, 8 save transformers 40 % of an answer's time, llama.cpp almost nothing."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if there is one."""
    threads: int = 0
    """Threads of the model on a CPU; 0 takes one for a small model, else all available cores, at most 8."""
    cache_gib: float = 0.0
    """GiB of KV caches kept between requests; 0 takes 1 GiB on a CPU, half of the free memory on a GPU."""
    queue: int = 32
    """Requests that may wait for the model; any more are answered with 429."""
    timeout_s: float = 60.0
    """A request that has not ended after this many seconds, waiting included, is answered with 504."""
    max_body_bytes: int = 4_000_000
    """Largest body of a request, which holds token ids; a larger one is answered with 413."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model must not be empty; name the folder of a model")
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port must be between 0 and 65535, got {self.port}")
        if self.device not in {"auto", "cpu", "cuda"}:
            raise ValueError(f"unknown device {self.device!r}; choose one of auto, cpu, cuda")
        if self.engine not in ENGINES:
            raise ValueError(f"unknown engine {self.engine!r}; choose one of {', '.join(ENGINES)}")
        if self.gguf_type not in GGUF_TYPES:
            raise ValueError(f"unknown gguf_type {self.gguf_type!r}; choose one of {', '.join(GGUF_TYPES)}")
        if self.draft_tokens < 0:
            raise ValueError(f"draft_tokens must not be negative, got {self.draft_tokens}")
        if self.engine == "llama.cpp" and self.device == "cuda":
            raise ValueError("engine llama.cpp runs on a CPU; choose --device cpu or --engine transformers")
        if self.queue < 1 or self.timeout_s <= 0 or self.threads < 0 or self.cache_gib < 0:
            raise ValueError("queue and timeout_s must be positive, threads and cache_gib must not be negative")
