"""Packing: never over the budget, items whole, and as much as possible as it was."""

from dataclasses import replace
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.context import ProjectIndex, packing
from infill.context.memo import Memo
from infill.context.packing import CHARS_PER_TOKEN, Packed, PackingRules, _surely_stay, pack
from infill.errors import InputError
from infill.prompt import ContextItem, FimRequest, render
from tests import golden
from tests.builders import SAMPLE
from tests.properties import examples
from tests.unit.context import brute

FMT, ENCODE = golden.FORMATS["infill"], golden.ENCODER.encode
CODE = SAMPLE.format(repo="r", module="m", noun="parcel", Noun="Parcel")


def item(number: int, score: float = 1.0, path: str = "") -> ContextItem:
    text = f"def helper_{number}(value: int) -> int:\n    return value + {number}\n"
    return ContextItem(path=path or f"lib/part_{number}.py", text=text, last_line=2, score=score, strategy="infill")


def request(prefix: str, suffix: str = "\n", items: tuple[ContextItem, ...] = ()) -> FimRequest:
    return FimRequest(path="app/main.py", prefix=prefix, suffix=suffix, context=items)


def shared(one: Packed, other: Packed) -> int:
    """Tokens that both prompts start with."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.prompt.ids, other.prompt.ids, strict=False))
    )


contexts = st.lists(
    st.builds(
        ContextItem, path=st.sampled_from(["a.py", "b.py", "app/main.py"]), text=brute.texts, score=st.floats(-9, 9)
    ),
    max_size=6,
).map(tuple)
requests = st.builds(
    FimRequest, path=st.sampled_from(["app/main.py", "a.py"]), prefix=brute.texts, suffix=brute.texts, context=contexts
)


@given(requests, requests, st.integers(12, 400), st.integers(12, 400))
@examples(150)
def test_never_over_the_budget_and_items_whole(first: FimRequest, second: FimRequest, one: int, other: int) -> None:
    packed = pack(FMT, ENCODE, first, budget=one)
    again = pack(FMT, ENCODE, second, previous=packed, budget=other)
    for result, asked, budget in ((packed, first, one), (again, second, other)):
        assert len(result.prompt.ids) <= budget
        assert result.prompt.ids[-1] == FMT.fim_middle
        assert all(each.path != asked.path for each in result.prompt.items)
        assert (result.why_empty is None) == bool(result.prompt.items)
    assert set(packed.prompt.items) <= set(first.context)
    assert set(again.prompt.items) <= {*first.context, *second.context}


@given(requests, st.integers(12, 400))
@examples(60)
def test_the_ids_are_those_of_render(asked: FimRequest, budget: int) -> None:
    packed = pack(FMT, ENCODE, asked, budget=budget)
    layout = packed.layout
    shown = replace(asked, prefix=asked.prefix[layout.start :], suffix=layout.suffix, context=layout.items)
    assert packed.prompt == render(FMT, ENCODE, shown, path_tokens=budget // 4)
    assert asked.suffix.startswith(layout.suffix)


def test_all_of_a_small_request_is_shown_best_item_last() -> None:
    items = tuple(item(number, score=number) for number in range(1, 5))
    packed = pack(FMT, ENCODE, request(CODE, CODE, items), budget=8_192)
    assert packed.prompt.items == items
    assert packed.prompt.prefix_tokens == len(ENCODE(CODE))
    assert packed.prompt.suffix_tokens == len(ENCODE(CODE))


def test_typing_changes_only_the_end() -> None:
    items = tuple(item(number, score=number) for number in range(1, 30))
    packed = pack(FMT, ENCODE, request(CODE * 30, CODE * 10, items), budget=2_048)
    assert packed.prompt.items
    typed = CODE * 30
    for char in "    total = sum(parcel.area()":
        typed += char
        before, packed = packed, pack(FMT, ENCODE, request(typed, CODE * 10, items), previous=packed, budget=2_048)
        assert len(packed.prompt.ids) - shared(before, packed) <= 8


def test_a_long_typing_session_moves_the_prefix_by_aligned_lines() -> None:
    packed, text, starts = None, CODE * 20, set[int]()
    for _ in range(150):
        text += "    value = compute(value, value)\n"
        packed = pack(FMT, ENCODE, request(text), previous=packed, budget=1_024)
        assert len(packed.prompt.ids) <= 1_024
        starts.add(packed.layout.start)
    assert 1 < len(starts) < 12
    assert all(text[:start].endswith("\n") for start in starts)


def test_an_item_is_replaced_only_when_that_pays() -> None:
    old = tuple(item(number) for number in range(4))
    packed = pack(FMT, ENCODE, request(CODE, "\n", old), budget=700)
    slightly = (item(9, score=0.1), *old)
    assert pack(FMT, ENCODE, request(CODE, "\n", slightly), previous=packed, budget=700).prompt.items == old
    new = tuple(item(number, score=5.0) for number in range(10, 14))
    assert set(pack(FMT, ENCODE, request(CODE, "\n", new), previous=packed, budget=700).prompt.items) >= set(new)


def test_what_is_surely_the_best_choice_is_the_one_that_the_account_of_all_gives() -> None:
    spared = 0

    @given(
        st.lists(
            st.tuples(st.integers(0, 12), st.floats(0.01, 9)), min_size=1, max_size=10, unique_by=lambda one: one[0]
        ),
        st.lists(
            st.tuples(st.integers(0, 12), st.floats(0.01, 9)), min_size=1, max_size=10, unique_by=lambda one: one[0]
        ),
        st.sampled_from([0.0, 0.2, 0.6, 3.0]),
        st.integers(200, 900),
    )
    @examples(300)
    def check(first: list[tuple[int, float]], then: list[tuple[int, float]], price: float, budget: int) -> None:
        nonlocal spared
        before, after = (tuple(item(number, score) for number, score in each) for each in (first, then))
        rules = PackingRules(prefill_price=price)
        old = pack(FMT, ENCODE, request(CODE, "\n", before), budget=budget, rules=rules)
        asked, answers = request(f"{CODE}x", "\n", after), list[bool]()

        def noted(most: float, kept: float, cost: float) -> bool:
            answers.append(_surely_stay(most, kept, cost))
            return answers[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "_surely_stay", noted)
            quick = pack(FMT, ENCODE, asked, previous=old, budget=budget, rules=rules)
            patch.setattr(packing, "_surely_stay", lambda *_: False)
            assert pack(FMT, ENCODE, asked, previous=old, budget=budget, rules=rules) == quick
        spared += any(answers)

    check()
    assert spared > 10


def test_the_first_items_cost_nothing_whatever_the_price() -> None:
    items = tuple(item(number) for number in range(4))
    packed = pack(FMT, ENCODE, request(CODE, "\n", items), budget=700, rules=PackingRules(prefill_price=100.0))
    assert packed.prompt.items == items


def test_half_of_an_item_counts_half() -> None:
    whole = item(1)
    half = replace(whole, text="".join(whole.text.splitlines(keepends=True)[: whole.text.count("\n") // 2]))
    for old, kept in ((whole, True), (half, False)):
        packed = pack(FMT, ENCODE, request(CODE, "\n", (old,)), budget=700)
        again = pack(
            *(FMT, ENCODE, request(CODE, "\n", (whole,))),
            previous=packed,
            budget=700,
            rules=PackingRules(prefill_price=0.1),
        )
        assert (again.prompt.items == (old,)) is kept


def test_an_item_that_changed_since_or_became_the_current_file_is_dropped() -> None:
    index = ProjectIndex.from_documents([(item(1).path, item(1).text), (item(2).path, "changed\n")])
    packed = pack(FMT, ENCODE, request(CODE, "\n", (item(2), item(1))), budget=2_048)
    asked = request(CODE, "\n", (item(1),))
    assert pack(FMT, ENCODE, asked, previous=packed, budget=2_048, holds=index.holds).prompt.items == (item(1),)
    there = FimRequest(path=item(1).path, prefix="", suffix=item(1).text, context=(item(2),))
    assert pack(FMT, ENCODE, there, previous=packed, budget=2_048).prompt.items == (item(2),)


def test_another_format_or_tokenizer_does_not_reuse_anything() -> None:
    packed = pack(FMT, ENCODE, request(CODE, "\n", (item(1),)), budget=512)
    bytewise = pack(FMT, lambda text: list(text.encode()), request("ab"), previous=packed, budget=512)
    assert bytewise.prompt.prefix_tokens == 2
    other = golden.FORMATS["starcoder2"]
    assert (
        pack(other, ENCODE, request("ab"), previous=packed, budget=64).prompt.ids
        == render(other, ENCODE, request("ab")).ids
    )


@pytest.mark.parametrize(
    ("items", "why"),
    [((), "no candidates"), ((item(1, path="app/main.py"),), "current file"), ((item(1),), "fits")],
)
def test_an_empty_context_says_why(items: tuple[ContextItem, ...], why: str) -> None:
    packed = pack(FMT, ENCODE, request(CODE, CODE, items), budget=40)
    assert packed.why_empty is not None
    assert why in packed.why_empty


def test_a_budget_without_room_is_an_error() -> None:
    with pytest.raises(InputError, match="budget"):
        pack(FMT, ENCODE, request(CODE), budget=3)


def test_the_prefix_keeps_its_end_and_the_suffix_its_start() -> None:
    asked = FimRequest(path="a", prefix="start " * 500 + "END", suffix="START" + " end" * 500)
    for fmt in golden.FORMATS.values():
        ids = pack(fmt, ENCODE, asked, budget=100).prompt.ids
        assert 90 <= len(ids) <= 100
        prefix = ids[
            ids.index(fmt.fim_prefix) + 1 : ids.index(fmt.fim_middle if fmt.order == "spm" else fmt.fim_suffix)
        ]
        suffix = ids[
            ids.index(fmt.fim_suffix) + 1 : ids.index(fmt.fim_prefix if fmt.order == "spm" else fmt.fim_middle)
        ]
        assert ENCODE("END") == prefix[-len(ENCODE("END")) :]
        assert golden.ENCODER.decode(suffix).startswith("START")


def test_the_best_item_is_the_first_to_get_room() -> None:
    big, small = ContextItem(path="big.py", text="x = 1\n" * 13), ContextItem(path="small.py", text="y = 2\n")
    asked = FimRequest(path="a.py", prefix="z", suffix="", context=(small, big))
    assert [each.path for each in pack(FMT, ENCODE, asked, budget=80).prompt.items] == ["big.py"]
    assert [each.path for each in pack(FMT, ENCODE, asked, budget=200).prompt.items] == ["small.py", "big.py"]


def test_no_huge_text_is_encoded() -> None:
    lengths: list[int] = []

    def encode(text: str) -> list[int]:
        lengths.append(len(text))
        return ENCODE(text)

    huge = "word " * 2_000_000
    context = (ContextItem(path="b", text=huge), ContextItem(path="c", text=huge[:3_000]))
    pack(FMT, encode, FimRequest(path="a", prefix=huge, suffix=huge, context=context), budget=200)
    assert max(lengths) <= 200 * CHARS_PER_TOKEN


def test_a_huge_line_and_a_huge_file_are_cut_quickly() -> None:
    packed = pack(FMT, ENCODE, request("x = 1\n" * 500_000 + "y" * 100_000, "z" * 3_000_000), budget=512)
    assert 0 < packed.prompt.prefix_tokens <= 512
    assert 0 < packed.prompt.suffix_tokens <= 512


@pytest.mark.parametrize(
    "change",
    [{"prefix_share": 0.9}, {"suffix_share": 0.0}, {"align_lines": 0}, {"slack": 1.0}, {"prefill_price": -1.0}],
)
def test_rules_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PackingRules(**change)  # type: ignore[arg-type]


@given(
    st.lists(
        st.sampled_from([" ", "\n", "\t", "\r\n", "a", "Z", "return", "é", "_", "9", "'s", "(", ");", "😀"]),
        max_size=80,
    ),
    st.integers(-1, 90),
    st.booleans(),
)
@examples(300)
def test_a_memo_gives_what_encode_gives(parts: list[str], most: int, again: bool) -> None:
    text = "".join(parts)
    memo, size = Memo(ENCODE), len(ENCODE(text))
    count = memo.count(text, most, again=again)
    assert count == size if size <= most else most < count <= size or not size
    assert memo(text) == ENCODE(text)
    assert memo.count(text, most) == size
    assert memo(text + " a\n") == ENCODE(text + " a\n")


def test_a_memo_encodes_only_what_changed() -> None:
    calls: list[str] = []

    def counted(text: str) -> list[int]:
        calls.append(text)
        return ENCODE(text)

    memo = Memo(counted)
    memo(CODE * 20)
    memo(CODE)
    calls.clear()
    memo = Memo(counted)
    assert memo(CODE * 20 + "x") == ENCODE(CODE * 20 + "x")
    assert memo(CODE) == ENCODE(CODE)
    assert sum(map(len, calls)) < len(CODE)


def test_a_tokenizer_that_merges_across_words_is_not_cut() -> None:
    def by_pairs(text: str) -> list[int]:
        return [hash(text[start : start + 2]) % 1_000 for start in range(0, len(text), 2)]

    assert Memo(by_pairs)(CODE) == by_pairs(CODE)


@given(
    st.lists(st.sampled_from([*CODE, "\n", "if x", " ", "\n    return value\n", "é", "it's"]), max_size=60), st.data()
)
@examples(200)
def test_sizes_of_ends_and_beginnings_are_those_of_their_tokens(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    ends, beginnings = Memo(ENCODE).ends(text), Memo(ENCODE).beginnings(text)
    for place in data.draw(st.lists(st.integers(0, len(text)), max_size=6)):
        assert ends(place) == len(ENCODE(text[place:]))
        assert beginnings(place) == len(ENCODE(text[:place]))
