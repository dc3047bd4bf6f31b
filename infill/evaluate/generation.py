"""Batched sampling from a model folder, for evaluation, preferences and the gate.

Legend: B = sequences of a batch, P = distinct prompts of a batch, T = tokens, V = vocabulary.

The same prompts with the same settings give the same tokens on the same machine, unless its free memory forces smaller
batches. The noise of a sample depends only on the seed, its prompt and its number among equal prompts, not on its
neighbours. But a matrix product may round differently in a batch of another shape, so two tokens whose probabilities
are equal to the last bit may change places.
"""

import hashlib
import math
import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import DynamicCache

from infill import inference, kv_cache, machine, model
from infill.context.packing import pack
from infill.errors import InputError
from infill.prompt import Encoder, FimRequest, PromptFormat, heal, load_encoder, load_format, stop_ids
from infill.token_bytes import TokenIndex, token_bytes

ENGINE: Final = "transformers"
"""Name of the engine in records. On a CPU, llama.cpp reads prompts more slowly (docs/log.md), and here all prompts are
new and decoded in batches; for an editor, whose prompts are mostly in the KV cache, llama.cpp is faster."""
BATCH_TOKENS: Final = 12_288
"""Positions (prompt and new tokens) of a batch on a CPU; the KV cache of larger ones leaves the processor's cache."""
BATCH_TOKENS_CUDA: Final = 262_144
READ_TOKENS: Final = 1_024
"""Positions of prompts that a CPU reads at once: the products are large enough, and what is between them stays in the
processor's cache."""
CACHE_SHARE: Final = 0.25
"""Share of the free memory for a batch's KV cache, which is copied as it grows."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    ids: list[int]
    """The new tokens without the stop token."""
    finished: bool
    """Whether it ended with a stop token rather than at the limit of new tokens."""
    reference_bits: float | None = None
    """-log2 of the reference's probability after the prompt; None without a reference."""


@dataclass(frozen=True, kw_only=True)
class SampledCompletion:
    """The continuation of a prompt, as serving answers it."""

    text: str
    """The new text, without the half-typed word before the caret."""
    finished: bool
    """Whether it ended with a stop token rather than at the limit of new tokens."""
    tokens: int
    """The number of new tokens, with those of the half-typed word."""
    word: str = ""
    """The half-typed word, which the model wrote again."""
    reference_bits: float | None = None
    """-log2 of the probability of the word with the reference; None without a reference."""

    def bits_per_byte(self, reference: str) -> float:
        """Return the bits of the word with its reference for each of their bytes."""
        assert self.reference_bits is not None
        return self.reference_bits / max(1, len((self.word + reference).encode()))


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    """One requested sample."""

    place: int
    """Position in the caller's list."""
    prompt: tuple[int, ...]
    temperature: float
    number: int
    """Number among the requests with the same prompt and temperature."""
    reference: tuple[int, ...] = ()
    beginning: str = ""
    """Text with which the sample must begin."""


class Generator:
    """A causal language model with its tokenizer and prompt format."""

    def __init__(self, folder: Path) -> None:
        """Load the model folder `folder`. Raises InputError when it is not one, or its tokenizer does not fit."""
        encoder, fmt = load_encoder(folder), load_format(folder)
        decoder = inference.load(folder, inference.choose_device())
        if encoder.vocab_size > decoder.config.vocab_size:
            raise InputError(
                f"the tokenizer in {folder} has {encoder.vocab_size} tokens, but the model only "
                f"{decoder.config.vocab_size}: they do not belong together; fetch or train the model again"
            )
        self._take(decoder, encoder, fmt)

    @classmethod
    def of(cls, decoder: Any, encoder: Encoder, fmt: PromptFormat) -> "Generator":
        """Return a generator for the Hugging Face model `decoder`, which is in memory, on its device."""
        generator = cls.__new__(cls)
        generator._take(decoder, encoder, fmt)
        return generator

    def _take(self, decoder: Any, encoder: Encoder, fmt: PromptFormat) -> None:
        self.model, self.encoder, self.format = decoder, encoder, fmt
        self.stop_ids: frozenset[int] = frozenset(stop_ids(fmt, encoder))
        self.device: torch.device = decoder.device
        self.threads = machine.useful_threads(decoder.num_parameters())
        self._tokens: TokenIndex | None = None
        self.context_length = model.context_length(decoder.config)
        self.batch_tokens: int = _batch_tokens(decoder, self.device)
        at_once = self.device.type == "cpu" and kv_cache.is_plain(decoder.config)
        self.read_tokens: int = READ_TOKENS if at_once else self.batch_tokens

    def prompt(self, request: FimRequest, budget: int) -> list[int]:
        """Return the token ids of `request` within `budget` tokens, in the layout of serving."""
        return pack(self.format, self.encoder.encode, request, budget=budget).prompt.ids

    def healed(self, prompt: Sequence[int]) -> tuple[list[int], str]:
        """Return the prompt without a half-typed word, and the word, as serving does; see `infill.prompt.heal`.

        With a tokenizer that is not byte-level, which our servers do not serve, prompts stay as they are.
        """
        try:
            _ = self.tokens
        except InputError:
            return [*prompt], ""
        return heal(self.format, self.encoder, prompt)

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float | Sequence[float] = 0.0,
        seed: int = 0,
        references: Sequence[str] | None = None,
        ends: bool = True,
    ) -> list[SampledCompletion]:
        """Return one completion per prompt, in order, with half-typed words healed as in serving.

        All that completes code calls this; see `generate` for the arguments. `references` are texts after the prompts,
        cut to the room in the model's context; with `ends`, a stop token follows them.
        """
        shorter, words = zip(*map(self.healed, prompts), strict=True) if prompts else ((), ())
        expected = None
        if references is not None:
            room = self.context_length - max(map(len, shorter), default=0) - 1
            texts = [word + reference for word, reference in zip(words, references, strict=True)]
            end = [self.format.endoftext] if ends else []
            expected = [[*self.encoder.encode(text)[:room], *end] for text in texts]
        generations = self.generate(
            shorter,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            references=expected,
            beginnings=words,
        )
        return [
            SampledCompletion(
                text=self.encoder.decode(each.ids)[len(word) :],
                finished=each.finished,
                tokens=len(each.ids),
                word=word,
                reference_bits=each.reference_bits,
            )
            for word, each in zip(words, generations, strict=True)
        ]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float | Sequence[float] = 0.0,
        seed: int = 0,
        top_p: float = 1.0,
        references: Sequence[Sequence[int]] | None = None,
        beginnings: Sequence[str] | None = None,
    ) -> list[Generation]:
        """Return new tokens after each prompt as it is, in order: greedy at temperature 0, otherwise sampled.

        `temperature` is one value for all prompts or one per prompt. Equal prompts are read by the model once and, at a
        temperature above 0, give different samples. `references`, one per prompt, are token ids whose probability after
        the prompt is returned with the completion, at little extra cost. `beginnings`, one per prompt, are texts with
        which the completions begin. Raises InputError for an empty prompt, and for one that leaves no room for
        `max_new_tokens` or its reference.
        """
        longest = max(map(len, prompts), default=0)
        room = max(max_new_tokens, max(map(len, references or ()), default=0))
        if longest + room > self.context_length:
            raise InputError(
                f"a prompt of {longest} tokens and {room} new tokens do not fit in the model's context of "
                f"{self.context_length}; lower max_prompt_tokens or max_new_tokens"
            )
        if not all(map(len, prompts)):
            raise InputError("a prompt must have at least one token, got an empty one")
        results: dict[int, Generation] = {}
        with torch.inference_mode(), _threads(self.threads):
            for batch in self._batches(_sequences(prompts, temperature, references, beginnings), room):
                results |= self._complete(batch, max_new_tokens, seed, top_p)
        return [results[place] for place in range(len(prompts))]

    def _batches(self, wanted: Sequence[_Sequence], room: int) -> Iterator[list[_Sequence]]:
        """Yield batches of sequences of similar length, equal prompts adjacent; each may grow by `room` tokens."""
        batch: list[_Sequence] = []
        for sequence in sorted(wanted, key=lambda s: (-len(s.prompt), s.prompt, s.place)):
            if batch and (len(batch) + 1) * (len(batch[0].prompt) + room) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(sequence)
        if batch:
            yield batch

    def _complete(
        self, batch: Sequence[_Sequence], max_new_tokens: int, seed: int, top_p: float
    ) -> dict[int, Generation]:
        """Return the completions of one batch by place. Ended sequences leave the batch when they are half of it."""
        logits, cache, mask, position = self._prefill(batch)
        bits = self._reference_bits(batch, logits, cache, mask, position)
        noise = [_noise(seed, sequence) for sequence in batch]
        ids: list[list[int]] = [[] for _ in batch]
        finished = [False] * len(batch)
        rows = list(range(len(batch)))  # row of the tensors -> index in batch
        due = [sequence.beginning.encode() for sequence in batch]
        for step in range(max_new_tokens):
            heat, drawn = [batch[i].temperature for i in rows], [_draw(noise[i]) for i in rows]
            tokens = inference.choose(self._agreeing(logits, [due[i] for i in rows]), heat, drawn, top_p)
            for i, token in zip(rows, tokens, strict=True):
                due[i] = due[i] and self.tokens.rest(due[i], token)
                if token in self.stop_ids:
                    finished[i] = True
                elif not finished[i]:
                    ids[i].append(token)
            alive = [row for row, i in enumerate(rows) if not finished[i]]
            if not alive or step == max_new_tokens - 1:
                break
            if len(alive) <= len(rows) // 2:
                keep = torch.tensor(alive, device=self.device)
                cache.batch_select_indices(keep)
                mask, position = mask[keep], position[keep]
                tokens, rows = [tokens[row] for row in alive], [rows[row] for row in alive]
            position = position + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            fed = torch.tensor(tokens, device=self.device)[:, None]
            logits = self._forward(fed, cache, mask, position[:, None])[:, -1]
        return {
            sequence.place: Generation(ids=ids[i], finished=finished[i], reference_bits=bits[i])
            for i, sequence in enumerate(batch)
        }

    @property
    def tokens(self) -> TokenIndex:
        """The tokenizer's tokens by their bytes. Raises InputError for a tokenizer that is not byte-level."""
        if self._tokens is None:
            self._tokens = TokenIndex(token_bytes(self.encoder.json))
        return self._tokens

    def _agreeing(self, logits: Tensor, due: Sequence[bytes]) -> Tensor:
        """Return `logits` (B, V), in each row only of tokens that agree with the text that is due there."""
        if not any(due):
            return logits
        rows = [
            inference.only(row, self.tokens.agreeing(text)) if text else row
            for row, text in zip(logits, due, strict=True)
        ]
        return torch.stack(rows)

    def _reference_bits(
        self, batch: Sequence[_Sequence], logits: Tensor, cache: DynamicCache, mask: Tensor, position: Tensor
    ) -> list[float | None]:
        """Return the bits of each reference after its prompt; the cache is unchanged afterwards."""
        width = max(len(sequence.reference) for sequence in batch)
        if not width:
            return [None] * len(batch)
        padded = [[*each.reference, *[self.format.endoftext] * (width - len(each.reference))] for each in batch]
        tokens = torch.tensor(padded, device=self.device)  # (B, R), padded on the right
        positions = position[:, None] + 1 + torch.arange(width, device=self.device)
        attended = torch.cat([mask, mask.new_ones(tokens.shape)], dim=1)
        following = self._forward(tokens, cache, attended, positions, keep=width)  # (B, R, V)
        cache.crop(-width)
        before = torch.cat([logits[:, None], following[:, :-1]], dim=1)
        costs = -log_softmax(before, -1).gather(2, tokens[:, :, None])[:, :, 0].double() / math.log(2)
        return [
            float(row[: len(each.reference)].sum()) if each.reference else None
            for row, each in zip(costs, batch, strict=True)
        ]

    def _prefill(self, batch: Sequence[_Sequence]) -> tuple[Tensor, DynamicCache, Tensor, Tensor]:
        """Read the prompts, padded on the left; return logits (B, V), cache, mask (B, T) and last positions (B)."""
        distinct = list(dict.fromkeys(sequence.prompt for sequence in batch))
        parts = [self._read(prompts) for prompts in self._portions(distinct)]
        config, (first, cache) = self.model.config, parts[0]
        logits = first if len(parts) == 1 else torch.cat([part for part, _ in parts])
        cache = cache if len(parts) == 1 else kv_cache.stacked(config, [part for _, part in parts])
        where = {prompt: row for row, prompt in enumerate(distinct)}
        expand = torch.tensor([where[sequence.prompt] for sequence in batch], device=self.device)
        if len(distinct) < len(batch):
            cache.batch_select_indices(expand)
        mask, positions = self._padding([sequence.prompt for sequence in batch])
        return logits[expand], cache, mask, positions[:, -1]

    def _portions(self, prompts: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """Yield the prompts, longest first, in portions that are read at once."""
        portion: list[tuple[int, ...]] = []
        for prompt in prompts:
            if portion and (len(portion) + 1) * len(portion[0]) > self.read_tokens:
                yield portion
                portion = []
            portion.append(prompt)
        yield portion

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, DynamicCache]:
        """Return the logits (P, V) after the prompts, and their cache."""
        mask, positions = self._padding(prompts)
        pad, width = self.format.endoftext, mask.shape[1]
        tokens = torch.tensor([[pad] * (width - len(each)) + [*each] for each in prompts], device=self.device)  # (P, T)
        cache = kv_cache.new_cache(self.model.config)
        return self._forward(tokens, cache, mask, positions)[:, -1], cache

    def _padding(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Return mask and positions, both (P, T), of prompts that are padded on the left."""
        columns = torch.arange(max(map(len, prompts)), device=self.device)
        left = torch.tensor([len(columns) - len(prompt) for prompt in prompts], device=self.device)[:, None]
        return (columns >= left).long(), (columns - left).clamp(min=0)

    def _forward(self, tokens: Tensor, cache: DynamicCache, mask: Tensor, positions: Tensor, keep: int = 1) -> Tensor:
        """Return the logits (B, `keep`, V) after the last `keep` of `tokens` (B, T); the cache grows by T."""
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits[:, -keep:].float()
        return logits


def _batch_tokens(decoder: Any, device: torch.device) -> int:
    """Return the number of positions of a batch whose KV cache fits in its share of the free memory of `device`."""
    config = decoder.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    position = 2 * config.num_hidden_layers * heads * width * decoder.dtype.itemsize  # bytes of keys and values
    if device.type == "cuda":
        return int(min(BATCH_TOKENS_CUDA, torch.cuda.mem_get_info(device)[0] * CACHE_SHARE // position))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min(BATCH_TOKENS, free * CACHE_SHARE // position))


def _sequences(
    prompts: Sequence[Sequence[int]],
    temperature: float | Sequence[float],
    references: Sequence[Sequence[int]] | None = None,
    beginnings: Sequence[str] | None = None,
) -> list[_Sequence]:
    temperatures = [temperature] * len(prompts) if isinstance(temperature, float | int) else list(temperature)
    seen: Counter[tuple[tuple[int, ...], float]] = Counter()
    wanted = []
    after = [()] * len(prompts) if references is None else [tuple(each) for each in references]
    first = beginnings or [""] * len(prompts)
    for place, (prompt, heat) in enumerate(zip(map(tuple, prompts), temperatures, strict=True)):
        number = seen[prompt, heat]
        sequence = _Sequence(place=place, prompt=prompt, temperature=heat, number=number)
        wanted.append(replace(sequence, reference=after[place], beginning=first[place]))
        seen[prompt, heat] += 1
    return wanted


def _noise(seed: int, sequence: _Sequence) -> np.random.Generator | None:
    """Return a source of uniform numbers that depends only on the sample; None if the choice is greedy."""
    if sequence.temperature <= 0:
        return None
    key = struct.pack(f"<qdq{len(sequence.prompt)}q", seed, sequence.temperature, sequence.number, *sequence.prompt)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:16], "little"))


def _draw(noise: np.random.Generator | None) -> float:
    return 0.0 if noise is None else float(noise.random())


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Use `number` threads in the block; afterwards restore the process's number."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
