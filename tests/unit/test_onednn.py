from pathlib import Path

import pytest
import torch
from torch import nn

from infill import inference, machine, model, onednn
from infill.onednn import OnednnLinear
from infill.train.scorer import Scorer
from tests import builders

SHAPES = ((64,), (1, 64), (5, 64), (2, 7, 64), (0, 64), (2, 0, 64))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_those_of_double_precision(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    exact, layer = nn.Linear(64, 96, bias=bias).double(), OnednnLinear(64, 96, bias=bias)
    layer.load_state_dict({name: value.float() for name, value in exact.state_dict().items()})
    inputs = torch.randn(shape, dtype=torch.double, requires_grad=True)
    same = inputs.detach().float().requires_grad_()
    expected, output = exact(inputs), layer(same)
    gradient = torch.randn_like(expected)
    torch.autograd.backward(expected, gradient)
    torch.autograd.backward(output, gradient.float())
    pairs = [(expected, output), (inputs.grad, same.grad)]
    pairs += [(one.grad, other.grad) for one, other in zip(exact.parameters(), layer.parameters(), strict=True)]
    for one, other in pairs:
        assert one is not None
        assert other is not None
        torch.testing.assert_close(other, one.float(), rtol=1e-4, atol=1e-5)


def test_frozen_weights_get_no_gradient_and_pass_it_on() -> None:
    layer = OnednnLinear(8, 4).requires_grad_(requires_grad=False)
    inputs = torch.randn(3, 8, requires_grad=True)
    layer(inputs).sum().backward()
    assert layer.weight.grad is layer.bias.grad is None
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, layer.weight.sum(0).expand(3, 8))


def test_other_types_are_multiplied_by_pytorch() -> None:
    layer, inputs = OnednnLinear(8, 4), torch.randn(3, 8)
    assert layer.double()(inputs.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(inputs).dtype == torch.bfloat16


@pytest.mark.parametrize(("maker", "faster"), [("AuthenticAMD", True), ("GenuineIntel", False), (None, False)])
def test_models_use_it_where_mkl_is_slow(
    maker: str | None, faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n" if maker else "Features\t: asimd\n")
    monkeypatch.setattr(machine, "CPU_INFO", info)
    monkeypatch.setattr(onednn, "is_faster", onednn.is_faster.__wrapped__)
    builders.tiny_model(tmp_path / "model")
    served = inference.load(tmp_path / "model", torch.device("cpu"))
    trained = Scorer(model.load(tmp_path / "model")).model
    for decoder in (served, trained):
        layers = {type(layer) for layer in decoder.modules() if isinstance(layer, nn.Linear)}
        assert layers == {OnednnLinear if faster else nn.Linear}
