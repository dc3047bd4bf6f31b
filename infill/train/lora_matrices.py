"""An adapter for servers that know LoRA's matrices and nothing else, as vLLM does.

peft stores the new rows of the control tokens (K x W) as they are. What they gain over the base's, D, is a product of
two matrices, too: of the embedding E (V x W) one that selects the tokens, S (K x V), and D transposed, E + S'D; of an
output layer that shares the embedding's weights the same two, the other way round.

    K = rows, R = rank, V = vocabulary, W = width, I and O = width of a layer's input and output
"""

from collections.abc import Mapping
from typing import Any, Final

import torch

ROWS: Final = "trainable_token_indices"
"""peft's setting: name of the embedding -> ids of the tokens whose rows were trained."""
_ROWS_TENSOR: Final = ".token_adapter.trainable_tokens_delta"
_LAYER_A: Final = ".lora_A.weight"
_LAYER_B: Final = ".lora_B.weight"
_HEAD: Final = "lm_head"

Tensors = dict[str, torch.Tensor]


def convert(
    settings: Mapping[str, Any], weights: Mapping[str, torch.Tensor], embedding: torch.Tensor, *, tied: bool
) -> tuple[dict[str, Any], Tensors]:
    """Return peft's settings and weights of the same adapter with all rows as matrices.

    `embedding` is the base's (V x W); `tied` says that the output layer shares it. One rank and a scale of one hold for
    all layers, so a rank below the number of rows becomes that.
    """
    rows = {name: sorted(ids) for name, ids in (settings.get(ROWS) or {}).items()}
    rank = max(settings["r"], *map(len, rows.values()), 0)
    scale = settings["lora_alpha"] / settings["r"]
    converted: Tensors = {}
    modules = set(settings["target_modules"])
    for name, weight in weights.items():
        if name.endswith(_ROWS_TENSOR):
            layer = name.removesuffix(_ROWS_TENSOR)
            ids = rows[layer.rpartition(".")[2]]
            gain = weight.float() - embedding[ids].float()
            converted |= _of_rows(layer, ids, gain, rank, len(embedding), tied=tied)
            modules |= {layer.rpartition(".")[2], *([_HEAD] if tied else [])}
        elif name.endswith(_LAYER_A):
            converted[name] = _padded(weight, rank, dim=0)  # R x I
        else:
            converted[name] = _padded(weight * scale, rank, dim=1)  # O x R
    changed = {"r": rank, "lora_alpha": rank, "target_modules": sorted(modules), ROWS: None}
    return {**settings, **changed}, converted


def _of_rows(layer: str, ids: list[int], gain: torch.Tensor, rank: int, vocabulary: int, *, tied: bool) -> Tensors:
    """Return the matrices of the rows `ids`, which gain `gain` (K x W)."""
    chosen = torch.zeros(rank, vocabulary, dtype=torch.float16)
    chosen[torch.arange(len(ids)), torch.tensor(ids)] = 1
    rows = _padded(gain, rank, dim=0)
    matrices = {f"{layer}.lora_embedding_A": chosen, f"{layer}.lora_embedding_B": rows.T.contiguous()}
    if tied:
        head = f"{layer.rpartition('.model.')[0]}.{_HEAD}"
        matrices |= {f"{head}{_LAYER_A}": rows, f"{head}{_LAYER_B}": chosen.T.contiguous()}
    return matrices


def _padded(weight: torch.Tensor, rank: int, dim: int) -> torch.Tensor:
    """Return `weight` with zeros after it, so that dimension `dim` is as long as the rank."""
    shape = list(weight.shape)
    shape[dim] = rank - shape[dim]
    return torch.cat([weight, weight.new_zeros(shape)], dim).contiguous() if shape[dim] else weight
