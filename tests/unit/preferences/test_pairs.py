from typing import Any

from infill.fim import is_sound
from infill.preferences import pairs
from infill.preferences.candidates import Candidate
from infill.preferences.judges import Verdict

BODY = """total = 0
    for item in items:
        total += item.size
    if total > 9:
        total = 9
    return total"""
HOLE: dict[str, Any] = {
    "language": "python",
    "prefix": "def size(items):\n    ",
    "middle": BODY,
    "suffix": "\n\n\nprint(size([]))\n",
}
SHORT = HOLE | {"prefix": "x = ", "middle": "1"}


def _candidate(text: str, *, finished: bool = True) -> Candidate:
    return Candidate(text=text, finished=finished, temperature=1.0)


def _pairs(hole: dict[str, Any], judged: dict[str, Verdict], margin: float = 0.1) -> list[pairs.Pair]:
    return pairs.pairs(hole, [_candidate(text) for text in judged], list(judged.values()), margin)


def test_the_best_sample_is_chosen_over_the_worst() -> None:
    verdicts = {"2": Verdict(score=0.7), "3": Verdict(score=0.9), "": Verdict(score=0.0, defects=("empty",))}
    (pair,) = _pairs(SHORT, verdicts)
    assert (pair.kind, pair.chosen, pair.rejected) == ("sample", "3", "")
    assert "empty" in pair.reason
    assert (pair.score_chosen, pair.score_rejected) == (0.9, 0.0)


def test_the_true_middle_is_used_when_all_samples_are_bad() -> None:
    (pair,) = _pairs(SHORT, {"pass": Verdict(score=0.2, defects=("stub",)), "2": Verdict(score=0.3)})
    assert (pair.kind, pair.chosen, pair.rejected) == ("truth", "1", "pass")
    assert pair.reason == "all samples are bad, so the true middle is chosen; rejected: stub"


def test_a_defect_keeps_even_a_high_score_from_being_chosen() -> None:
    (pair,) = _pairs(SHORT, {"1;": Verdict(score=0.8, defects=("does not stop",))})
    assert pair.kind == "truth"


def test_no_pair_below_the_margin_or_of_a_single_good_sample() -> None:
    assert _pairs(SHORT, {"2": Verdict(score=0.80), "3": Verdict(score=0.75)}) == []
    assert _pairs(SHORT, {"1": Verdict(score=1.0)}) == []
    assert _pairs(SHORT, {"1": Verdict(score=0.1, defects=("the judge errs",))}) == []


def test_ties_do_not_depend_on_the_order_of_the_samples() -> None:
    verdicts = {"3": Verdict(score=0.2), "2": Verdict(score=0.2)}
    assert _pairs(SHORT, verdicts) == _pairs(SHORT, dict(reversed(verdicts.items())))


def test_a_long_middle_is_cut_at_a_syntactic_boundary_and_chosen_over_what_is_too_long() -> None:
    endless = BODY + "\n    return total" * 5
    candidates = [_candidate(endless, finished=False), _candidate("return 1")]
    verdicts = [Verdict(score=0.4, defects=("does not stop",)), Verdict(score=0.1)]
    short = pairs.pairs(HOLE, candidates, verdicts, 0.1)[1]
    assert (short.kind, short.rejected, short.rejected_finished) == ("short", endless, False)
    assert short.chosen == "total = 0\n    for item in items:\n        total += item.size"
    assert is_sound(HOLE["prefix"] + short.chosen + HOLE["suffix"], "python")


def test_nothing_is_cut_without_need_or_without_a_boundary() -> None:
    assert [pair.kind for pair in _pairs(HOLE, {"return 1": Verdict(score=0.1)})] == ["truth"]
    assert pairs.shorten(SHORT) is None
    assert pairs.shorten(HOLE | {"language": "text"}) is None
    assert pairs.shorten(HOLE | {"suffix": "\n)"}) is None
    brackets = HOLE | {"prefix": "x = ", "middle": "(\n1,\n2,\n3,\n4,\n5\n)", "suffix": "\n"}
    assert pairs.shorten(brackets) is None
    heads = HOLE | {
        "middle": "if items:\n        # why\n        if items:\n            return 1\n    x = 1\n    return 2"
    }
    assert pairs.shorten(heads) is None


def test_an_echo_goes_on_into_the_suffix() -> None:
    assert pairs.echo(SHORT | {"suffix": "\nprint(x)\n"}).rejected == "1\nprint(x)\n"
    assert pairs.echo(SHORT | {"suffix": ""}).rejected == "1\n1"
