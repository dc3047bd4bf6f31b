"""The table of what a large corpus takes, computed from the rates. `tests/docs` compares the page."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tools.corpus_scale import BUILDS, Build, Rates, cost


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
