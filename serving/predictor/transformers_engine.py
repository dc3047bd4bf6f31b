"""transformers as the predictor's engine: prefill from the longest known prefix, then one token at a time.

With drafts, some tokens that the prompt suggests are computed with it; those that the model would have chosen are kept.
One request at a time; T = tokens of the prompt, D = tokens of a draft, V = vocabulary.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from infill import inference, machine, model
from infill.errors import InputError
from infill.prompt import load_encoder
from infill.token_bytes import TokenIndex, token_bytes
from serving.predictor.cache import CachedPrompt, Ids, PrefixCache
from serving.predictor.completion import Piece
from serving.predictor.detokeniser import Detokeniser
from serving.predictor.folder import CPU_CACHE_BYTES, read_stop_ids
from serving.predictor.prompt_lookup import PromptLookup
from serving.protocol import Sampling

PREFILL_TOKENS: Final = 512
"""Prompt tokens per forward pass, between which a cancelled request is noticed; a GPU takes eight times as many."""
PLAIN_LAYERS: Final = {DynamicLayer, DynamicSlidingWindowLayer}
"""Layers whose keys and values can all be kept (the mask applies the window) and be cropped to a prefix."""


@dataclass(kw_only=True)
class Session:
    """One request's tokens and their keys and values."""

    prompt: Ids
    cache: DynamicCache
    cached_tokens: int
    """Number of the prompt's first tokens that an earlier request computed."""
    fed: list[int]
    """Tokens whose keys and values are in the cache."""
    whole: bool = True
    """False while a forward pass runs: after an error there the layers may differ in length."""

    def forget(self, count: int) -> None:
        """Remove the last tokens from the cache: those of a draft that are not in the answer."""
        if count:
            self.cache.crop(-count)
            del self.fed[-count:]


class TransformersEngine:
    """A model in transformers with its KV caches. Used by one thread."""

    name = "transformers"
    slots = 1

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        threads: int = 0,
        cache_gib: float = 0.0,
        draft_tokens: int = 0,
    ) -> None:
        self.device = inference.choose_device(device)
        config = _load_config(folder)
        encoder = load_encoder(folder)
        self.tokens = TokenIndex(token_bytes(encoder.json))
        self.model = inference.load(folder, self.device)
        torch.set_num_threads(threads or machine.useful_threads(self.model.num_parameters()))
        self.context_length = model.context_length(config)
        self.vocab_size = int(config.vocab_size)
        self.stop_ids = read_stop_ids(folder, encoder)
        room = int(cache_gib * 2**30) or _cache_room(self.device)
        self.cache = PrefixCache(room)
        self.draft_tokens = draft_tokens
        self._prefill_tokens = PREFILL_TOKENS * (8 if self.device.type == "cuda" else 1)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV caches that are kept between requests."""
        return self.cache.nbytes

    def complete(
        self, prompt: list[int], sampling: Sampling, check: Callable[[], None], salt: str = ""
    ) -> Generator[Piece, None, None]:
        """Yield pieces up to one with a finish reason; call `check`, which may raise, before each forward pass."""
        stops = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else self.stop_ids)
        detokeniser = Detokeniser(self.tokens.table)
        try:
            with self.session(prompt, salt) as session:
                for count, token in enumerate(self.generate(session, sampling, check), start=1):
                    ended = token in stops
                    text = "" if ended else detokeniser.feed(token)
                    reason = "stop" if ended else "length" if count == sampling.max_tokens else None
                    yield Piece(text=text, finish_reason=reason, tokens=count, cached_tokens=session.cached_tokens)
                    if reason:
                        return
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    @contextmanager
    def session(self, prompt: list[int], salt: str = "") -> Iterator[Session]:
        """Yield a session for `prompt`; afterwards keep its KV cache for its salt's requests, even if cancelled."""
        ids = np.asarray(prompt, dtype=np.int64)
        cache, length = self.cache.take(ids, salt)
        session = Session(prompt=ids, cache=cache, cached_tokens=length, fed=prompt[:length])
        try:
            yield session
        except torch.OutOfMemoryError:
            self.cache.clear()
            torch.cuda.empty_cache()
            raise
        finally:
            if session.whole:
                known = np.asarray(session.fed, dtype=np.int64)
                used = min(len(ids), len(known))
                self.cache.put(CachedPrompt(ids=known, prompt_tokens=used, cache=session.cache, salt=salt))

    def generate(self, session: Session, sampling: Sampling, check: Callable[[], None]) -> Iterator[int]:
        """Yield tokens without end; call `check`, which may raise, before each forward pass.

        Their text begins with `sampling.begins_with`.
        """
        due, draft, left = sampling.begins_with.encode(), list[int](), sampling.max_tokens
        generator, lookup = _seeded(sampling.seed), PromptLookup(session.prompt.tolist() if self.draft_tokens else ())
        rest = session.prompt[session.cached_tokens :].tolist()
        chunks = [rest[start : start + self._prefill_tokens] for start in range(0, len(rest), self._prefill_tokens)]
        for chunk in chunks:
            check()
            rows = self._forward(session, chunk)
        while True:
            for logits, drafted in zip_longest(rows, draft):
                uniform = torch.rand((), dtype=torch.float64, generator=generator).item()
                allowed = inference.only(logits, self.tokens.agreeing(due)) if due else logits
                [token] = inference.choose(allowed[None], [sampling.temperature], [uniform], sampling.top_p)
                due = self.tokens.rest(due, token)
                yield token
                lookup.add(token)
                left -= 1
                if token != drafted:
                    break
                draft = draft[1:]
            check()
            session.forget(len(draft))
            draft = lookup.draft(min(self.draft_tokens, left - 1))
            rows = self._forward(session, [token, *draft], keep=1 + len(draft))

    def probe(self) -> None:
        """Compute one token without any cache. Raises whatever is wrong with the model or its device.

        Before the first request this also loads the device's libraries.
        """
        session = Session(prompt=np.zeros(1, np.int64), cache=DynamicCache(), cached_tokens=0, fed=[])
        self._forward(session, [0])

    def close(self) -> None:
        """Drop the KV caches; the model is freed with its last reference."""
        self.cache.clear()

    @torch.inference_mode()
    def _forward(self, session: Session, ids: list[int], keep: int = 1) -> torch.Tensor:
        """Return the logits [`keep`, V] after the last `keep` of `ids`, in fp32 on the CPU."""
        session.whole = False
        output = self.model(
            input_ids=torch.tensor([ids], device=self.device),
            past_key_values=session.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: torch.Tensor = output.logits[0, -keep:].float().cpu()
        if not logits.isfinite().any():
            raise ArithmeticError("the model computed no finite logits")
        session.fed.extend(ids)
        session.whole = True
        return logits


def _seeded(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed % 2**64)
    return generator


def _load_config(folder: Path) -> Any:
    config = model.load_config(folder)
    odd = {type(layer) for layer in DynamicCache(config=config).layers} - PLAIN_LAYERS
    if odd:
        raise InputError(f"{folder} has layers that are not plain attention ({config.model_type}); serve it with vLLM")
    return config


def _cache_room(device: torch.device) -> int:
    return CPU_CACHE_BYTES if device.type == "cpu" else torch.cuda.mem_get_info(device)[0] // 2
