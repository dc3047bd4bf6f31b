"""The scorer: from a batch to the log-probability of each target, for the objectives.

T = positions, N = targets, D = width, V = vocabulary
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from infill import onednn
from infill.model import LOGITS
from infill.train import attention
from infill.train.attention import AttentionSpan
from infill.train.batch import Batch


class Scorer(nn.Module):
    """A wrapper of a Hugging Face decoder whose forward pass returns log-probabilities, [N].

    The language-model head is applied only to the positions that have a target: in SFT about one in ten.
    """

    def __init__(self, model: Any, *, recompute: bool = False) -> None:
        super().__init__()
        self.model = model
        if recompute:
            model.train()  # transformers recomputes only in this mode; it activates no dropout, since the rates are 0
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.config._attn_implementation = attention.NAME
        on_gpu = model.device.type == "cuda"
        if model.device.type == "cpu":
            onednn.use(model)
        self.decoder: Any = torch.compile(model.model) if on_gpu else model.model
        # One kernel for softmax and loss, for any number of targets.
        self.log_probs: Any = torch.compile(self._log_probs, dynamic=True) if on_gpu else self._log_probs_in_place
        self.max_logits = LOGITS[model.device.type if on_gpu else "cpu"]

    def forward(
        self, ids: Tensor, positions: Tensor, picks: Tensor, targets: Tensor, spans: Sequence[AttentionSpan]
    ) -> Tensor:
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
            log_probs: Tensor = self.log_probs(hidden, targets)
            return log_probs
        parts = zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
        kept = [checkpoint(self.log_probs, part, target, use_reentrant=False) for part, target in parts]
        return torch.cat(kept)

    def _log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.model.lm_head(hidden).float()  # [N, V]
        return -cross_entropy(logits, targets, reduction="none")

    def _log_probs_in_place(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.model.lm_head(hidden).float()
        log_probs: Tensor = InPlaceLogProbs.apply(logits, targets)  # type: ignore[no-untyped-call]
        return log_probs


class InPlaceLogProbs(torch.autograd.Function):
    """The log-probability of each target, [N], from logits, [N, V], computed in the memory of the logits.

    That memory is reused for their log-softmax and then for their gradient. They are the largest tensor of a step, of
    which PyTorch's cross-entropy makes four. On a CPU, where new memory costs more than the computation, this saves a
    tenth of a step (docs/log.md). PyTorch refuses a second backward pass through the same graph, because its input is
    overwritten.
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
        softmax_part = log_softmax.exp_().mul_(-gradient[:, None])
        return softmax_part.scatter_add_(1, targets[:, None], gradient[:, None]), None


def score(scorer: nn.Module, batch: Batch) -> Tensor:
    """Return the log-probability of each target of `batch`, [N]; `scorer` is a Scorer or DeepSpeed's wrapper of one."""
    log_probs = scorer(batch.ids, batch.positions, batch.picks, batch.targets, batch.spans)
    assert isinstance(log_probs, Tensor)
    return log_probs
