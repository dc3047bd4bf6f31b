"""fp32 matrix products on a CPU by oneDNN, where MKL is slow.

PyTorch multiplies fp32 matrices by Intel's MKL, which uses AVX-512 only on Intel's own processors. oneDNN, which
PyTorch carries for other types, uses it on each: on an AMD EPYC it makes 2.3 times the operations per second
(docs/log.md).
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from infill import machine


class OnednnLinear(nn.Linear):
    """A linear layer whose fp32 products on a CPU are oneDNN's, the gradients' too; others stay PyTorch's."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `inputs` (..., in) times the weight's transpose, plus the bias: (..., out)."""
        fp32 = inputs.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        on_cpu = inputs.device.type == self.weight.device.type == "cpu"
        if not (fp32 and on_cpu and inputs.dim() > 1 and inputs.numel()):
            return super().forward(inputs)
        output: Tensor = _Linear.apply(inputs, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return output


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient,), (inputs, weight) = gradients, ctx.saved_tensors
        for_input, for_weight, for_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            _product(gradient, weight.t()) if for_input else None,
            _product(rows.t(), inputs.flatten(0, -2).t()) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return output


@cache
def is_faster() -> bool:
    """Return whether oneDNN multiplies fp32 matrices faster than MKL here: on an x86 processor that is not Intel's."""
    maker = machine.cpu_info("vendor_id")  # only of an x86 processor
    return bool(maker) and maker != "GenuineIntel" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def use(model: nn.Module) -> None:
    """Let the linear layers of `model` use oneDNN if it is faster here. Weights, names and types of files stay."""
    if not is_faster():
        return
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = OnednnLinear
