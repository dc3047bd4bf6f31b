"""The transformer's settings, and what it reads from the model's folder and the deployment record."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from infill import manifest, model, storage
from infill.context import CANDIDATES
from infill.context.strategies import STRATEGIES
from infill.errors import InputError
from infill.prompt import FILES, Encoder, PromptFormat, load_encoder, load_format, why_format

MAX_NEW_TOKENS: Final = 128
TELEMETRY: Final = ("off", "metrics", "feedback")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The command-line options of the transformer."""

    model: str = field(default="", metadata=storage.LOCATION)
    """URI of the folder of the model or its tokenizer; empty takes the deployment's."""
    deployment: str = field(default="", metadata=storage.LOCATION)
    """URI of the deployment record, if there is one; its limits apply and its prompt format's hash must match."""
    predictor: str = "http://127.0.0.1:8081"
    """Base URL of the predictor."""
    name: str = "infill"
    """Name of the model in answers."""
    upstream_name: str = ""
    """Name of the model at the predictor; empty leaves it out of requests."""
    host: str = "0.0.0.0"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on."""
    max_prompt_tokens: int = 0
    """Budget of a prompt in tokens; 0 takes the deployment's, else the model's context minus `max_new_tokens`."""
    max_new_tokens: int = 0
    """Default and upper bound of `max_tokens`; 0 takes the deployment's, else 128 or a quarter of the context."""
    strategy: str = "infill"
    """Context strategy."""
    context_items: int = CANDIDATES
    """Number of candidates that packing may choose from, each of about ten lines."""
    connect_s: float = 2.0
    """Seconds until a connection to the predictor must be made."""
    first_token_s: float = 30.0
    """Seconds until the predictor's first token, including the wait in its queue."""
    total_s: float = 60.0
    """Seconds until a whole request must be answered."""
    max_requests: int = 256
    """Requests at once that are read, packed or wait for their first token; any more are answered with 429."""
    cors_origins: str = ""
    """Origins of web pages that may call this server, separated by commas, or `*`; empty allows none."""
    keys: str = field(default="", metadata=storage.LOCATION)
    """File of API keys, of which clients must send one; `infill keys add` writes it. Empty asks for none."""
    oidc_issuer: str = ""
    """URL of an OpenID Connect issuer whose tokens are accepted, instead of keys or in addition to them."""
    oidc_audience: str = ""
    """Audience that the tokens must be made for."""
    oidc_tenant: str = "sub"
    """Claim of the tokens that names the tenant."""
    tenant_requests: int = 0
    """Requests a minute of each tenant, in each replica; one more is answered with 429. 0 sets no limit."""
    tenant_tokens: int = 0
    """Tokens a day of each tenant, prompts and completions, in each replica. 0 sets no limit."""
    max_body_bytes: int = 16_000_000
    """Largest body of a request; a larger one is answered with 413."""
    telemetry: str = "off"
    """The fate of suggestions: `off`, `metrics` (counted for Prometheus, without code) or `feedback` (kept too)."""
    telemetry_events: int = 1_200
    """Events a minute that a client may report."""
    feedback: str = field(default="", metadata=storage.LOCATION)
    """Folder of the feedback dataset, for `telemetry` = `feedback`: only what users agreed to, without secrets."""
    feedback_bytes: int = 1_000_000_000
    """Largest size of a tenant's folder of feedback; what comes when it is full is dropped and counted."""
    index_chars: int = 256_000_000
    """Characters of text that stay indexed between requests."""
    workspace_bytes: int = 512_000_000
    """Memory that all workspaces may take, of which one may take half; the least recently used ones are dropped. A
    project takes about five times the size of its source files. 0 allows no workspaces."""
    healing: bool = True
    """Whether a half-typed word is completed by its whole tokens, where the predictor can (Infill's and vLLM)."""
    sessions: int = 256
    """Editor sessions whose last prompt is kept with its token ids, about 1 MB for 8,000 tokens."""
    completion_cache_bytes: int = 64_000_000
    """Memory of finished answers, from which typing through a suggestion and deleting back are answered without the
    predictor. 0 keeps none."""
    warm_s: float = 0.2
    """Seconds after a change of a workspace after which the prompts of the carets that were last completed in it are
    computed in advance, until the next request. 0 computes none."""
    candidate_predictor: str = ""
    """Base URL of a second predictor, which runs the candidate; empty has none."""
    candidate_model: str = field(default="", metadata=storage.LOCATION)
    """URI of the candidate's model folder, if its tokenizer, prompt format or context differ from the model's. The
    limits of prompts and answers are the model's, as far as they fit."""
    candidate_name: str = "candidate"
    """Name of the candidate in its answers and metrics."""
    canary_weight: float = 0.0
    """Per cent of the users whom the candidate answers."""
    canary_requests: int = 100
    """Requests, or suggestions with a known fate, of each side before they are compared."""
    canary_window_s: float = 600.0
    """Seconds that are compared."""
    canary_errors: float = 0.02
    """Excess of the candidate's error rate, as a fraction, that is tolerated."""
    canary_latency: float = 1.5
    """Multiple of the stable side's p90 latency that is tolerated."""
    canary_acceptance: float = 0.05
    """Drop of the candidate's acceptance rate, as a fraction, that is tolerated."""
    shadow_requests: int = 0
    """Requests at once that the candidate answers unseen, for comparison; 0 leaves the shadow off."""

    def __post_init__(self) -> None:
        if not self.model and not self.deployment:
            raise ValueError("model and deployment are both empty; name a model folder or a deployment record")
        if not self.predictor.startswith(("http://", "https://")):
            raise ValueError(f"predictor must be an http:// or https:// URL, got {self.predictor!r}")
        if not 0 < self.port <= 65_535:
            raise ValueError(f"port must be between 1 and 65535, got {self.port}")
        if self.max_requests < 1:
            raise ValueError(f"max_requests must be at least 1, got {self.max_requests}")
        if min(self.connect_s, self.first_token_s, self.total_s) <= 0:
            raise ValueError("connect_s, first_token_s and total_s must be positive")
        if min(self.max_prompt_tokens, self.max_new_tokens, self.context_items) < 0:
            raise ValueError("max_prompt_tokens, max_new_tokens and context_items must not be negative")
        if min(self.workspace_bytes, self.completion_cache_bytes) < 0:
            raise ValueError("workspace_bytes and completion_cache_bytes must not be negative")
        if self.warm_s < 0:
            raise ValueError(f"warm_s must not be negative, got {self.warm_s}")
        self._check_access()
        self._check_telemetry()
        self._check_canary()

    def candidate(self) -> "TransformerConfig":
        """Return the configuration of the candidate, which differs in predictor, name and perhaps model."""
        changes: dict[str, Any] = {"predictor": self.candidate_predictor, "name": self.candidate_name}
        if self.candidate_model:
            changes |= {"model": self.candidate_model, "deployment": ""}
        off: dict[str, Any] = {"candidate_predictor": "", "candidate_model": "", "canary_weight": 0.0}
        return replace(self, **changes, **off, shadow_requests=0)

    def _check_canary(self) -> None:
        if not self.candidate_predictor and (self.candidate_model or self.canary_weight or self.shadow_requests):
            raise ValueError("candidate_model, canary_weight and shadow_requests need candidate_predictor")
        if self.candidate_predictor and not self.candidate_predictor.startswith(("http://", "https://")):
            raise ValueError(
                f"candidate_predictor must be an http:// or https:// URL, got {self.candidate_predictor!r}"
            )
        if self.candidate_predictor and self.candidate_name in ("", self.name):
            raise ValueError(f"candidate_name must be a name other than the model's, got {self.candidate_name!r}")
        if not 0 <= self.canary_weight <= 100:
            raise ValueError(f"canary_weight must be between 0 and 100, got {self.canary_weight}")
        if self.canary_requests < 1 or not self.canary_window_s > 0 or not self.canary_latency >= 1:
            raise ValueError("canary_requests and canary_latency must be at least 1, canary_window_s positive")
        if not (0 <= self.canary_errors <= 1 and 0 <= self.canary_acceptance <= 1) or self.shadow_requests < 0:
            raise ValueError("canary_errors and canary_acceptance must be fractions, shadow_requests not negative")

    def _check_telemetry(self) -> None:
        if self.telemetry not in TELEMETRY:
            raise ValueError(f"telemetry must be one of {', '.join(TELEMETRY)}, got {self.telemetry!r}")
        if (self.telemetry == "feedback") != bool(self.feedback):
            raise ValueError("telemetry=feedback and the folder in feedback belong together: set both or none")
        if min(self.telemetry_events, self.feedback_bytes) < 1:
            raise ValueError("telemetry_events and feedback_bytes must be positive")

    def _check_access(self) -> None:
        if bool(self.oidc_issuer) != bool(self.oidc_audience):
            raise ValueError("oidc_issuer and oidc_audience belong together: set both or none")
        if self.oidc_issuer and not self.oidc_issuer.startswith(("http://", "https://")):
            raise ValueError(f"oidc_issuer must be an https:// URL, got {self.oidc_issuer!r}")
        if min(self.tenant_requests, self.tenant_tokens) < 0:
            raise ValueError("tenant_requests and tenant_tokens must not be negative; 0 sets no limit")
        if (self.tenant_requests or self.tenant_tokens) and not (self.keys or self.oidc_issuer):
            raise ValueError("tenant_requests and tenant_tokens need keys or oidc_issuer, which tell tenants apart")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The prompt format, tokenizer and limits from a model folder and a deployment record."""

    fmt: PromptFormat
    why_format: str
    """The format's name, and what determined it."""
    encoder: Encoder
    max_prompt_tokens: int
    max_new_tokens: int
    candidate: "Prepared | None" = None
    """The same of the candidate, if there is one."""


def prepare(config: TransformerConfig, stable: Prepared | None = None) -> Prepared:
    """Read the tokenizer, the prompt format and the limits; a candidate gets those of `stable`, as far as they fit.

    With other limits, users would compare lengths of prompts and not models.

    Raises InputError when the format's version is unknown to this code, the format differs from the deployment's, the
    limits are unknown or exceed the context, or the context strategy does not exist: such a transformer must not become
    ready.
    """
    if config.strategy not in STRATEGIES:
        raise InputError(f"unknown context strategy {config.strategy!r}; choose one of {', '.join(STRATEGIES)}")
    record = storage.read_json(config.deployment) if config.deployment else {}
    uri = config.model or manifest.follow(record, "model", storage.parent(config.deployment))
    if not uri:
        raise InputError(f"{config.deployment} names no model_uri; deploy again")
    with storage.some_files(uri, FILES) as folder:
        fmt, encoder, context = load_format(folder), load_encoder(folder), _context_length(folder)
        why = why_format(folder)
    expected = record.get("prompt_format_hash", fmt.hash)
    if expected != fmt.hash:
        raise InputError(
            f"the prompt format in {uri} has hash {fmt.hash}, the deployment expects {expected}; deploy the model again"
        )
    usual_prompt, usual_new = _usual_limits(context, stable)
    max_new = config.max_new_tokens or int(record.get("max_new_tokens", usual_new))
    budget = config.max_prompt_tokens or int(record.get("max_prompt_tokens", usual_prompt or context - max_new))
    if budget <= 0 or (context and budget + max_new > context):
        raise InputError(
            f"{budget} prompt tokens and {max_new} new tokens do not fit the context of {context} tokens of {uri}; "
            "set max_prompt_tokens and max_new_tokens"
        )
    prepared = Prepared(fmt=fmt, why_format=why, encoder=encoder, max_prompt_tokens=budget, max_new_tokens=max_new)
    if not config.candidate_predictor:
        return prepared
    return replace(prepared, candidate=prepare(config.candidate(), prepared))


def _usual_limits(context: int, stable: Prepared | None) -> tuple[int, int]:
    """Return the tokens of prompt (0: what remains) and answer without settings; a context of 0 is unknown."""
    if stable is None:
        return 0, min(MAX_NEW_TOKENS, context // 4) if context else MAX_NEW_TOKENS
    if not context:
        return stable.max_prompt_tokens, stable.max_new_tokens
    new = min(stable.max_new_tokens, context // 2)
    return min(stable.max_prompt_tokens, context - new), new


def _context_length(folder: Path) -> int:
    """Return the model's context length in tokens; 0 when the folder holds only a tokenizer."""
    if not (folder / "config.json").exists():
        return 0
    value: Mapping[str, Any] = storage.read_json(str(folder / "config.json"))
    return model.context_length(value)
