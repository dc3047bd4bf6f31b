"""The table of what a large corpus takes: computed from the rates, and the same in the documentation."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tools import corpus_scale
from tools.corpus_scale import BUILDS, Build, Rates, cost

PAGE = Path(corpus_scale.__file__).parents[1] / "docs" / "how-to" / "large-corpus.md"


def test_the_page_has_the_table_of_the_measured_rates() -> None:
    assert corpus_scale.table(Rates()) in PAGE.read_text(encoding="utf-8")


@given(st.integers(1, 200), st.integers(1, 20))
def test_nodes_shorten_only_the_shards_and_batches_lengthen_only_the_decision(nodes: int, batches: int) -> None:
    one = cost(Build(name="", size=1e12, nodes=1), Rates())
    many = cost(Build(name="", size=1e12, nodes=nodes, batches=batches), Rates())
    for step, hours in many.hours.items():
        factor = 1 / nodes if "workers" in step else (batches + 1) / 2 if "deciding" in step else 1
        assert abs(hours - one.hours[step] * factor) < 1e-9 * hours
    assert many.driver_gb <= one.driver_gb
    assert many.disk_gb == one.disk_gb


def test_the_slowest_step_is_that_with_the_most_hours() -> None:
    slow = replace(Rates(), bytes_per_core=1.0)
    assert [cost(build, slow).slowest for build in BUILDS] == ["reading, judging, writing (workers)"] * len(BUILDS)
