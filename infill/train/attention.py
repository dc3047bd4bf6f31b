"""Attention in packed documents: documents in the same micro-batch do not attend to each other.

    T = tokens of the micro-batch, H = heads, D = width of a head

A micro-batch is one row of T tokens, cut into spans. A span attends causally to itself and, if it is a branch, to the
first `shared` tokens of the span before it: so the chosen and the rejected completion of a pair share their prompt,
which is computed once.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME: Final = "infill_packed"
"""Name of this attention implementation in transformers."""


class AttentionSpan(NamedTuple):
    length: int
    shared: int = 0
    """Leading tokens of the previous span that this one attends to as well."""


def packed_attention(
    _module: torch.nn.Module,
    query: Tensor,  # [1, H, T, D]
    key: Tensor,  # [1, H_kv, T, D]
    value: Tensor,  # [1, H_kv, T, D]
    attention_mask: BlockMask | None,
    *,
    scaling: float,
    spans: Sequence[AttentionSpan] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """Return the attention of each span, [1, T, H, D]; the interface is that of transformers.

    With a BlockMask (on a GPU), one fused kernel computes it. Otherwise PyTorch's attention is called for each span, so
    that the cost grows with the squared length of the spans, not of the row.
    """
    if attention_mask is not None:
        fused = flex_attention(query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=True)
        assert isinstance(fused, Tensor)
        return fused.transpose(1, 2), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    lengths = [span.length for span in spans]
    parts = list(zip(*(torch.split(tensor, lengths, 2) for tensor in (query, key, value)), strict=True))
    outputs = []
    for number, (q, k, v) in enumerate(parts):
        shared = spans[number].shared
        if not shared:
            outputs.append(scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling))
            continue
        _, before_k, before_v = parts[number - 1]
        all_k = torch.cat([before_k[:, :, :shared], k], 2)
        all_v = torch.cat([before_v[:, :, :shared], v], 2)
        mask = torch.ones(q.shape[2], all_k.shape[2], dtype=torch.bool).tril(shared)
        outputs.append(scaled_dot_product_attention(q, all_k, all_v, attn_mask=mask, scale=scaling))
    return torch.cat(outputs, 2).transpose(1, 2), None


AttentionInterface.register(NAME, packed_attention)


def block_mask(spans: Sequence[AttentionSpan], device: torch.device) -> BlockMask:
    """Return the mask of `spans` for the fused kernel: the same rule as in `packed_attention`."""
    number, first, last = [], [], []
    start = before = 0
    for index, span in enumerate(spans):
        number += [index] * span.length
        first += [before] * span.length
        last += [before + span.shared] * span.length
        before, start = start, start + span.length
    own, lo, hi = (torch.tensor(values, device=device) for values in (number, first, last))

    def allowed(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((own[q] == own[k]) & (k <= q)) | ((k >= lo[q]) & (k < hi[q]))

    # Compiled on a GPU, where the whole mask of a long row would not fit in memory.
    on_gpu = device.type == "cuda"
    return create_block_mask(allowed, None, None, start, start, device=str(device), _compile=on_gpu)
