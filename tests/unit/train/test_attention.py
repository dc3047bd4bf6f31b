"""Packed documents do not see each other, and branches see their prompt."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from infill import model
from infill.config import ModelConfig
from infill.train import attention
from infill.train.attention import AttentionSpan
from infill.train.batch import Batch, Item, pack, pair_item, plain_item
from infill.train.scorer import InPlaceLogProbs, Scorer, score

VOCABULARY = 64


def make_scorer(kv_heads: int = 2) -> Scorer:
    shape = ModelConfig(layers=2, width=32, mlp_width=64, heads=4, kv_heads=kv_heads, context_length=64, rope_base=1e4)
    return Scorer(model.build(model.llama_config(shape, VOCABULARY)))


def document(seed: int, length: int) -> Item:
    generator = torch.Generator().manual_seed(seed)
    return plain_item(torch.randint(0, VOCABULARY, (length,), generator=generator).tolist(), group="any")


def by_item(scorer: Scorer, items: list[Item], tokens: int) -> list[torch.Tensor]:
    log_probs = score(scorer, pack(items, tokens))
    return list(torch.split(log_probs, [len(item.targets) for item in items]))


def test_changing_one_document_changes_no_other() -> None:
    scorer = make_scorer()
    items = [document(1, 9), document(2, 14), document(3, 5)]
    before = by_item(scorer, items, 40)
    after = by_item(scorer, [items[0], document(9, 14), items[2]], 40)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_a_packed_document_scores_as_it_does_alone_in_transformers() -> None:
    scorer = make_scorer()
    items = [document(1, 9), document(2, 14)]
    packed = by_item(scorer, items, 32)
    scorer.model.config._attn_implementation = "sdpa"
    for item, hit in zip(items, packed, strict=True):
        ids = torch.tensor([item.ids])
        loss = scorer.model(input_ids=ids, labels=ids).loss
        assert -hit.mean().item() == pytest.approx(loss.item(), abs=1e-5)


def test_both_completions_of_a_pair_score_as_they_do_alone() -> None:
    scorer = make_scorer()
    prompt, chosen, rejected = document(1, 12).ids, document(2, 6).ids, document(3, 3).ids
    pair = pair_item(prompt, chosen, rejected)
    scores = score(scorer, pack([document(4, 5), pair], 40))[4:]
    alone = [
        score(scorer, pack([plain_item(prompt + end, start=len(prompt) - 1, group="any")], 40))
        for end in (chosen, rejected)
    ]
    torch.testing.assert_close(scores, torch.cat(alone), atol=1e-5, rtol=1e-4)


def dense_mask(spans: tuple[AttentionSpan, ...]) -> torch.Tensor:
    mask = torch.zeros(*2 * (sum(span.length for span in spans),), dtype=torch.bool)
    start = before = 0
    for span in spans:
        end = start + span.length
        mask[start:end, start:end] = torch.ones(span.length, span.length).tril().bool()
        mask[start:end, before : before + span.shared] = True
        before, start = start, end
    return mask


def test_the_fused_kernels_mask_is_the_same_rule() -> None:
    spans = (AttentionSpan(40), AttentionSpan(70), AttentionSpan(30, 25), AttentionSpan(100))
    answer: Any = attention.block_mask(spans, torch.device("cpu"))
    place = torch.arange(240)
    result = answer.mask_mod(torch.tensor(0), torch.tensor(0), place[:, None], place[None, :])
    assert torch.equal(result, dense_mask(spans))


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_spans_give_what_a_dense_mask_gives(kv_heads: int) -> None:
    spans = (AttentionSpan(5), AttentionSpan(7), AttentionSpan(3, 4), AttentionSpan(9))
    query = torch.randn(1, 4, 24, 8)
    key, value = torch.randn(1, kv_heads, 24, 8), torch.randn(1, kv_heads, 24, 8)
    hit, _ = attention.packed_attention(torch.nn.Identity(), query, key, value, None, scaling=0.3, spans=spans)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=dense_mask(spans), scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(hit.transpose(1, 2), expected)


def test_chunks_of_logits_change_neither_scores_nor_gradients() -> None:
    whole, chunked = make_scorer(), make_scorer()
    chunked.max_logits = 5 * VOCABULARY
    batch = pack([document(1, 9), document(2, 14)], 32)
    gradients = []
    for scorer in (whole, chunked):
        loss = -score(scorer, batch).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append([weight.grad for weight in scorer.parameters()])
    torch.testing.assert_close(*gradients)


def test_log_probabilities_in_place_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, targets, upstream = torch.randn(40, 96), torch.randint(96, (40,)), torch.randn(40)
    theirs = logits.clone().requires_grad_()
    expected = -cross_entropy(theirs, targets, reduction="none")
    expected.backward(upstream)  # type: ignore[no-untyped-call]
    ours = logits.clone().requires_grad_()
    scores = InPlaceLogProbs.apply(ours * 1.0, targets)  # type: ignore[no-untyped-call]
    scores.backward(upstream, retain_graph=True)
    assert torch.equal(scores, expected)
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-6)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        scores.backward(upstream)


def test_a_blank_batch_gives_a_zero_gradient() -> None:
    scorer = make_scorer()
    score(scorer, pack([], 16)).sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None and not weight.grad.any() for weight in scorer.model.parameters())


def test_a_batch_moves_as_a_whole() -> None:
    moved = pack([document(1, 9)], 16).to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert {value.device.type for value in vars(moved).values() if torch.is_tensor(value)} == {"meta"}
