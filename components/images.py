"""The images that components run in, and the one place where their names stand.

`INFILL_IMAGES` may point to a JSON file {"train": "registry/infill-train@sha256:...", ...}, as `make images` writes it;
it is read when the pipeline is compiled. KFP's cache key holds the reference: by digest, a changed image is a miss.
"""

import json
import os
from typing import Final

from infill import __version__, storage
from infill.cluster.sizing import RAY_STAGES
from infill.errors import InputError
from infill.text import read_text

NAMES: Final = ("pipeline", "train", "transformer", "predictor")
IN_PROCESS: Final = "INFILL_IN_PROCESS"
"""Environment variable: "1" where the compiled pipeline is to run without KubeRay, as under KFP's Docker runner."""


def image(name: str) -> str:
    """The image of that name: by digest where `make images` has run, else by this release's tag."""
    if name not in NAMES:
        raise ValueError(f"unknown image {name!r}; choose one of {', '.join(NAMES)}")
    if file := os.environ.get("INFILL_IMAGES"):
        try:
            return str(json.loads(read_text(storage.local_path(file)))[name])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} does not name the image {name} ({error!r}): run images/build.sh again") from error
    return f"infill-{name}:{__version__}"


def step(stage: str) -> str:
    """The image of a stage's step: `pipeline`, or `train` where the step itself does what else a RayJob does."""
    return image("train" if stage in RAY_STAGES and os.environ.get(IN_PROCESS) == "1" else "pipeline")
