"""llama.cpp as the predictor's engine, on a CPU."""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from infill import llama_cpp, machine, model
from infill.prompt import load_encoder
from serving.predictor.completion import Piece
from serving.predictor.folder import CPU_CACHE_BYTES, count_parameters, read_config, read_stop_ids
from serving.protocol import Sampling

MAX_SLOTS: Final = 4
"""Most requests at once; also the number of editor sessions whose KV caches stay in place between requests."""
RANDOM_SEED: Final = 2**32 - 1
"""The seed with which llama.cpp chooses one at random."""

COLDEST: Final = 1e-5
"""Below this temperature we take the most probable token, as vLLM does: llama.cpp divides by the temperature in single
precision, which overflows and makes all tokens equally probable."""


class LlamaCppEngine:
    """A model in llama.cpp, which schedules its slots itself. Used by at most `slots` threads."""

    name = "llama.cpp"

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 0,
        cache_gib: float = 0.0,
        gguf_type: str = llama_cpp.GGUF_TYPE,
        draft_tokens: int = 0,
    ) -> None:
        """Load the model in `folder`. Raises InputError for one that llama.cpp cannot read faithfully."""
        file = llama_cpp.convert(folder, gguf_type)  # raises InputError first for a model that llama.cpp cannot read
        config, encoder = read_config(folder), load_encoder(folder)
        self.context_length = model.context_length(config)
        self.vocab_size = int(config["vocab_size"])
        self.stop_ids = read_stop_ids(folder, encoder)
        room = int(cache_gib * 2**30) or CPU_CACHE_BYTES
        slot_bytes = self.context_length * llama_cpp.cache_bytes_per_token(config)
        self.slots = max(1, min(MAX_SLOTS, room // slot_bytes))
        self.cache_bytes = max(room, slot_bytes)
        self._salts: set[str] = set()
        self._server = llama_cpp.LlamaCppServer(
            file,
            context_length=self.context_length,
            slots=self.slots,
            threads=threads or machine.useful_threads(count_parameters(folder)),
            cache_bytes=self.cache_bytes - self.slots * slot_bytes,
            draft_tokens=draft_tokens,
        )

    def complete(
        self, prompt: list[int], sampling: Sampling, check: Callable[[], None], salt: str = ""
    ) -> Generator[Piece, None, None]:
        """Yield pieces up to one with a finish reason; call `check`, which may raise, before each.

        llama.cpp does not keep caches apart: from the second salt on nothing is taken from them.
        """
        if len(self._salts) < 2:
            self._salts.add(salt)
        reuse = {} if len(self._salts) == 1 else {"cache_prompt": False}
        stops = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else self.stop_ids)
        cached = 0
        with closing(self._server.stream({"prompt": prompt, **request_fields(sampling), **reuse})) as events:
            for event in events:
                check()
                if progress := event.get("prompt_progress"):
                    cached = progress["cache"]
                    continue
                piece = _piece(event, stops, cached)
                yield piece
                if piece.finish_reason:
                    return

    def probe(self) -> None:
        """Compute one token. Raises ServiceError when llama.cpp fails."""
        self._server.probe()

    def close(self) -> None:
        """Stop llama.cpp."""
        self._server.close()


def request_fields(sampling: Sampling) -> dict[str, Any]:
    """Return `sampling` as llama.cpp's fields: temperature before top-p, as in vLLM, and no other filter."""
    common: dict[str, Any] = {"n_predict": sampling.max_tokens, "ignore_eos": sampling.ignore_eos}
    if sampling.begins_with:
        common["grammar"] = f"root ::= {json.dumps(sampling.begins_with, ensure_ascii=False)} [^\\x00]*"
    if sampling.temperature < COLDEST:
        return {**common, **llama_cpp.GREEDY}
    settings = {"temperature": sampling.temperature, "top_p": sampling.top_p, "samplers": ["temperature", "top_p"]}
    return {**common, **settings, "seed": RANDOM_SEED if sampling.seed is None else sampling.seed % RANDOM_SEED}


def _piece(event: Mapping[str, Any], stops: set[int], cached: int) -> Piece:
    """Return one event as a piece; llama.cpp's last event has no text, only the reason."""
    reason = None
    if event["stop"]:
        reason = "length" if event["stop_type"] == "limit" else "stop"
    elif not stops.isdisjoint(event["tokens"]):
        reason = "stop"
    text = event["content"] if reason is None else ""
    return Piece(text=text, finish_reason=reason, tokens=event["tokens_predicted"], cached_tokens=cached)
