"""The detectors of defects on completions with labels by construction, of this repository's code."""

from pathlib import Path

from benchmarks.detectors import CLEAN, labelled, measure

ROOT = Path(__file__).parents[2]


def test_detectors_find_what_is_built_in_and_nothing_in_the_authors_text() -> None:
    completions = list(labelled([ROOT / "infill", ROOT / "web" / "src"], 60))
    assert len(completions) >= 300
    assert len({(each.hole["id"], each.text) for each in completions}) > 290
    result = measure(completions)
    assert result["completions"] == sum(result["labels"].values())
    assert sum(result["marked"][CLEAN].values()) == 0
    detectors = result["detectors"]
    for name, least in {"stub": 0.7, "echo": 0.9, "unfinished": 0.6, "verbose": 0.3}.items():
        assert detectors[name]["recall"]["value"] >= least, name
        assert detectors[name]["precision"]["value"] >= 0.6, name
    assert completions == list(labelled([ROOT / "infill", ROOT / "web" / "src"], 60))
