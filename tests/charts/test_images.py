"""From a build to everything that names images: `images/build.sh` with a Docker that only says what it was asked."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.images import NAMES
from tests.charts.bundle import CHARTS, HELM, ROOT

REGISTRY = "registry.example:5000/team"
DOCKER = """#!/usr/bin/env bash
# An image that was pushed twice has a digest in each registry.
echo "$@" >>"$(dirname "$0")/asked"
case $1 in
inspect)
    name=${4##*/}
    digest=$(printf %s "${name%:*}" | sha256sum | cut -d " " -f 1)
    case $3 in
    *Size*) echo 123456789 ;;
    *RepoDigests*) printf 'elsewhere.example/%s@sha256:%064d\\n%s@sha256:%s\\n' "${name%:*}" 0 "${4%:*}" "$digest" ;;
    esac
    ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit with what a build reads, and a full wheelhouse."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copytree(ROOT / "images", folder / "images")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    wheels = folder / "dist" / "wheels" / "cpu"
    wheels.mkdir(parents=True)
    (wheels / "SHA256SUMS").touch()
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "pyproject.toml"], [*author, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("lock", ["cpu", "cuda"])
def test_the_image_of_the_stages_has_rays_job_api(lock: str) -> None:
    """KubeRay submits a job to Ray's dashboard and asks its agent for the node's health; plain Ray starts neither."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
    (ray,) = (Requirement(each) for each in extras if each.startswith("ray["))
    assert "default" in ray.extras
    wanted = [Requirement(each) for each in metadata.requires("ray") or ()]
    names = {
        canonicalize_name(each.name) for each in wanted if each.marker and each.marker.evaluate({"extra": "default"})
    }
    pinned = {line.partition("==")[0] for line in (ROOT / f"requirements/{lock}.txt").read_text().splitlines()}
    assert {"aiohttp-cors", "opencensus"} <= names <= pinned


def build(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "DOCKER": str(checkout / "docker"), **environment}
    return subprocess.run([checkout / "images/build.sh"], env=given, capture_output=True, text=True, check=False)


def test_digests_reach_the_pipeline_and_both_charts(checkout: Path) -> None:
    done = build(checkout, REGISTRY=REGISTRY)
    assert done.returncode == 0, done.stderr
    digests = {name: hashlib.sha256(f"infill-{name}".encode()).hexdigest() for name in NAMES}
    wanted = {name: f"{REGISTRY}/infill-{name}@sha256:{digest}" for name, digest in digests.items()}
    assert json.loads((checkout / "dist/images.json").read_text()) == wanted

    compile_it = (
        "import sys, pathlib; from pipelines.full import compile_pipeline; compile_pipeline(pathlib.Path(sys.argv[1]))"
    )
    target = checkout / "pipeline.yaml"
    environment = {**os.environ, "INFILL_IMAGES": str(checkout / "dist/images.json")}
    subprocess.run([sys.executable, "-c", compile_it, target], cwd=ROOT, env=environment, check=True)
    documents = list(yaml.safe_load_all(target.read_text()))
    executors = documents[0]["deploymentSpec"]["executors"].values()
    used = {executor["container"]["image"] for executor in executors}
    assert used
    assert used <= set(wanted.values())

    for chart, names in (("platform", ("pipeline",)), ("serving", ("transformer", "predictor"))):
        rendered = render(f"infill-{chart}", checkout / f"dist/{chart}-images.json")
        assert [name for name in names if wanted[name] not in rendered] == []


def render(chart: str, values: Path) -> str:
    default = CHARTS / chart / "ci" / "default-values.yaml"
    command = [str(HELM), "template", "infill", str(CHARTS / chart), "--values", str(default), "--values", str(values)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_registry_images_keep_their_tags_and_charts_get_nothing(checkout: Path) -> None:
    assert build(checkout, REGISTRY=REGISTRY).returncode == 0
    done = build(checkout)
    assert done.returncode == 0, done.stderr
    version = "0.1.0"
    names = json.loads((checkout / "dist/images.json").read_text())
    assert names == {name: f"infill-{name}:{version}" for name in NAMES}
    assert sorted(path.name for path in (checkout / "dist").iterdir()) == ["images.json", "wheels"]
    assert "transformer    123 MB" in done.stdout


def test_a_build_names_its_base_torch_version_and_commit(checkout: Path) -> None:
    assert build(checkout, BASE_IMAGE="base:1", TORCH="cpu").returncode == 0
    asked = (checkout / "asked").read_text()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (
        asked.count(
            f"--build-arg BASE_IMAGE=base:1 --build-arg TORCH=cpu --build-arg VERSION=0.1.0 --build-arg COMMIT={commit}"
        )
        == 4
    )


def test_a_build_without_wheels_says_what_to_run(checkout: Path) -> None:
    done = build(checkout, TORCH="cuda")
    assert done.returncode == 1
    assert done.stderr == "images/build.sh: run images/wheels.sh first\n"


def test_images_in_ci_say_that_they_were_skipped(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "uname"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "id").write_text("#!/bin/bash\necho ${WHO:-0}\n")
    (tools / "id").chmod(0o755)
    for who, why in (
        ("1000", "root is needed"),
        ("0", "not installed: gcc libc6-dev docker.io debootstrap (INSTALL=1"),
    ):
        done = subprocess.run(
            [ROOT / "images/ci.sh"], env={"PATH": str(tools), "WHO": who}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 77
        assert f"SKIPPED, images neither built nor run: {why}" in done.stderr
