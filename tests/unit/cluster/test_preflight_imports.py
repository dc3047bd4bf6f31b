"""Preflight in a fresh process: no two threads import the same library for the first time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infill import stages
from infill.cluster.api import Api
from infill.cluster.job_settings import VARIABLE
from tests.kube.apiserver import Server
from tests.unit.cluster.test_rayjob import SETTINGS
from tests.unit.corpus.folders import write_repositories

SCRIPT = '''
import collections, dataclasses, json, sys, threading

imported = collections.defaultdict(set)
watching = []

class Recorder:
    """Notes which thread imports a module for the first time."""
    def find_spec(self, name, path=None, target=None):
        if watching:
            imported[name.partition(".")[0]].add(threading.current_thread().name)

sys.meta_path.insert(0, Recorder())
from infill import preflight

real = preflight._start
def start(checks):
    watching.append(True)
    return real(checks)
preflight._start = start
try:
    preflight.check(preset="debug", settings=sys.argv[1], store=sys.argv[2], budget=1.0)
except preflight.InputError as error:
    print(error, file=sys.stderr)
shared = {name: sorted(threads) for name, threads in imported.items() if len(threads) > 1}
ours = {name: sorted(threads) for name, threads in imported.items() if name in ("infill", "kubernetes", "mlflow")}
print(json.dumps({"shared": shared, "late": ours}))
'''


@pytest.mark.slow
@pytest.mark.parametrize("on_cluster", [True, False], ids=["cluster", "laptop"])
def test_threads_of_preflight_import_nothing_that_another_imports(
    server: Server, api: Api, mlflow_store: Path, tmp_path: Path, on_cluster: bool
) -> None:
    code = write_repositories(tmp_path / "code")
    cluster = {VARIABLE: json.dumps({"image": SETTINGS.image}), stages.RUN: "run-1"} if on_cluster else {}
    words = [json.dumps({"sources": [f"dir:{code}"]}), str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], env=os.environ | cluster, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["shared"] == {}
    assert set(seen["late"]) <= {"mlflow"}, "MLflow loads its stores when they are used: by one thread"
