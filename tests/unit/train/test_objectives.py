"""The losses against their formulas, transformers' and TRL's."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from infill import model
from infill.train import objectives
from infill.train.batch import pack, pair_item, plain_item
from infill.train.scorer import Scorer, score
from tests.builders import tiny_model


def test_groups_are_logged_apart() -> None:
    items = [plain_item([1, 2, 3], group="a"), plain_item([1, 2], group="b"), plain_item([4, 5], group="a")]
    result = objectives.language_model(torch.tensor([-1.0, -2.0, -4.0, -8.0]), pack(items, 8))
    assert result.loss == 15
    assert {name: (float(total), count) for name, (total, count) in result.counts.items()} == {
        "loss/a": (11.0, 3.0),
        "loss/b": (4.0, 1.0),
    }


def test_sft_loss_is_that_of_transformers(tmp_path: Path) -> None:
    loaded = model.load(Path(tiny_model(tmp_path)))
    prompt, middle = list(range(5, 17)), [40, 41, 42, 0]
    batch = pack([plain_item(prompt + middle, start=len(prompt) - 1, group="python")], 32)
    ours = objectives.language_model(score(Scorer(loaded), batch), batch).loss / batch.weight
    loaded.config._attn_implementation = "sdpa"
    labels = torch.tensor([[-100] * len(prompt) + middle])
    assert ours.item() == pytest.approx(loaded(input_ids=torch.tensor([prompt + middle]), labels=labels).loss.item())


def test_dpo_is_equation_7() -> None:
    items = [pair_item([1, 2], [3, 4], [5], numbers=(-2.0, -1.0)), pair_item([1], [2], [3, 4], numbers=(-1.0, -3.0))]
    batch = pack(items, 16)
    log_probs = torch.tensor([-0.5, -0.5, -2.0, -1.5, -1.0, -1.0])
    result = objectives.dpo(0.5)(log_probs, batch)
    margins = [0.5 * ((-1 + 2) - (-2 + 1)), 0.5 * ((-1.5 + 1) - (-2 + 3))]
    assert result.loss.item() == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins))
    assert float(result.counts["accuracy"][0]) == 1
    weighted = objectives.dpo(0.5, sft_weight=2.0)(log_probs, batch)
    assert weighted.loss.item() == pytest.approx(result.loss.item() + 2 * (0.5 + 1.5))
    normalised = objectives.dpo(0.5, length_normalised=True)(log_probs, batch)
    margins = [0.5 * ((-1 + 2) / 2 - (-2 + 1)), 0.5 * ((-1.5 + 1) - (-2 + 3) / 2)]
    assert normalised.loss.item() == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("variant", ["sigmoid", "sigmoid_norm"])
def test_dpo_loss_and_gradients_are_those_of_trl(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TRL_EXPERIMENTAL_SILENCE", "1")
    from datasets import Dataset  # type: ignore[import-untyped]
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]

    folder = Path(tiny_model(tmp_path / "model"))
    pairs = [("def area(", "self):\n    return 1", "x"), ("for name in ", "names:", "range(3): pass")]
    policy, reference = model.load(folder), model.load(folder)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    settings = DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=0.3,
        loss_type=[variant],
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    rows = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in pairs]
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, inputs)  # type: ignore[no-untyped-call]
    theirs.backward()
    expected = {name: weight.grad.clone() for name, weight in policy.named_parameters()}
    policy.zero_grad()

    batch = our_batch(inputs, Scorer(reference))
    objective = objectives.dpo(0.3, length_normalised=variant == "sigmoid_norm")
    result = objective(score(Scorer(policy), batch), batch)
    ours = result.loss / batch.weight
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    for name, weight in policy.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], atol=1e-5, rtol=1e-4)


def our_batch(inputs: dict[str, Any], reference: Scorer) -> Any:
    """The pairs of a batch of TRL (chosen rows, then rejected rows) as ours, with the reference's log-probabilities."""
    parts = []
    for ids, attended, completed in zip(
        inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), inputs["completion_mask"].tolist(), strict=True
    ):
        prompt = [i for i, a, c in zip(ids, attended, completed, strict=True) if a and not c]
        parts.append((prompt, [i for i, c in zip(ids, completed, strict=True) if c]))
    half = len(parts) // 2
    pairs = [(prompt, chosen, parts[half + k][1]) for k, (prompt, chosen) in enumerate(parts[:half])]
    with torch.no_grad():
        first = pack([pair_item(*pair) for pair in pairs], 256)
        sums = objectives.segment_sums(score(reference, first), first).tolist()
    items = [pair_item(*pair, numbers=(sums[2 * k], sums[2 * k + 1])) for k, pair in enumerate(pairs)]
    return pack(items, 256)
