"""Fixtures that several test modules share."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import benchmark_data  # noqa: F401  # takes the variable out of the environment before a stage reads it

pytest_plugins = ("tests.mlflow_store", "tests.object_store")

os.environ["INFILL_OPT_OUT"] = ""  # what the user of this machine lists concerns no test
# As in `infill.cli.main`: before PyTorch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Tiny models lose more by waiting for a second thread than it gives them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray gives its workers niceness 15: next to another process of the tests they would get next to nothing.
os.environ.setdefault("RAY_worker_niceness", "0")

# How quickly a busy machine draws its inputs says nothing about the code. CI draws the same inputs each time, and so
# never fails for a change that has nothing to do with it; `--hypothesis-profile explore` looks for new ones.
settings.register_profile(
    "infill", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=25
)
settings.register_profile("thorough", settings.get_profile("infill"), max_examples=100)
settings.register_profile("explore", settings.get_profile("infill"), derandomize=False, max_examples=1_000)
settings.load_profile("infill")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests: of two processes none shall wait for the other at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _no_mlflow_is_left_behind() -> Iterator[None]:
    """The command line sets MLFLOW_TRACKING_URI for its own process; the next test is another user."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of one Ray for the whole session, in RAY_ADDRESS too, so that processes of a test find it."""
    import ray

    from infill.ray_session import interpreter

    ray.init(
        address="local",
        runtime_env=interpreter(),
        num_cpus=4,  # of two cores: three workers must find room
        object_store_memory=100_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    address: str = ray.get_runtime_context().gcs_address
    os.environ["RAY_ADDRESS"] = address
    yield address
    del os.environ["RAY_ADDRESS"]
    ray.shutdown()
