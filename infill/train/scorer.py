"""The model as the objectives see it: from a batch to the log-probability of each target.

T = positions, N = targets, D = width, V = vocabulary
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from infill.model import LOGITS
from infill.train import attention
from infill.train.attention import Span
from infill.train.batch import Batch


class Scorer(nn.Module):
    """Wraps a Hugging Face decoder so that its forward pass returns log-probabilities, [N].

    The language-model head is applied to the positions that have a target and no others: in SFT that is one in ten.
    """

    def __init__(self, model: Any, *, recompute: bool = False) -> None:
        super().__init__()
        self.model = model
        if recompute:
            model.train()  # transformers recomputes in this mode alone; there is no dropout that it would switch on
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.config._attn_implementation = attention.NAME
        on_gpu = model.device.type == "cuda"
        self.decoder: Any = torch.compile(model.model) if on_gpu else model.model
        # One kernel for softmax and loss, for any number of targets.
        self.log_probs: Any = torch.compile(self._log_probs, dynamic=True) if on_gpu else self._log_probs_in_place
        self.max_logits = LOGITS[model.device.type if on_gpu else "cpu"]

    def forward(self, ids: Tensor, positions: Tensor, picks: Tensor, targets: Tensor, spans: Sequence[Span]) -> Tensor:
        on_gpu = ids.device.type == "cuda"
        hidden = self.decoder(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=attention.block_mask(spans, ids.device) if on_gpu else None,
            spans=() if on_gpu else spans,
            use_cache=False,
        ).last_hidden_state[0]  # [T, D]
        hidden = hidden.index_select(0, picks)  # [N, D]
        vocabulary = self.model.config.vocab_size
        chunk = max(1, self.max_logits // vocabulary)
        if len(picks) <= chunk:
            found: Tensor = self.log_probs(hidden, targets)
            return found
        parts = zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
        kept = [checkpoint(self.log_probs, part, target, use_reentrant=False) for part, target in parts]
        return torch.cat(kept)

    def _log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.model.lm_head(hidden).float()  # [N, V]
        return -cross_entropy(logits, targets, reduction="none")

    def _log_probs_in_place(self, hidden: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = InPlaceLogProbs.apply(self.model.lm_head(hidden).float(), targets)  # type: ignore[no-untyped-call]
        return found


class InPlaceLogProbs(torch.autograd.Function):
    """The log-probability of each target, [N], from logits, [N, V], whose memory takes up first the logarithm of their
    softmax and then their gradient: the largest tensor of a step, of which PyTorch's own cross-entropy makes four.

    On a CPU, where fresh memory costs more than what is computed in it, that is a tenth of a step (docs/log.md).
    A second backward pass through the same graph is refused by PyTorch, because what it needs is overwritten.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        log_softmax = torch.log_softmax(logits, 1, out=logits)
        ctx.save_for_backward(log_softmax, targets)
        return log_softmax.gather(1, targets[:, None])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        log_softmax, targets = ctx.saved_tensors
        found = log_softmax.exp_().mul_(-gradient[:, None])
        return found.scatter_add_(1, targets[:, None], gradient[:, None]), None


def score(scorer: nn.Module, batch: Batch) -> Tensor:
    """The log-probability of each target of `batch`, [N], through `scorer` or an engine round it."""
    log_probs = scorer(batch.ids, batch.positions, batch.picks, batch.targets, batch.spans)
    assert isinstance(log_probs, Tensor)
    return log_probs
