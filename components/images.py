"""The images in which components run; this module defines their names.

`INFILL_IMAGES` may name a JSON file {"train": "registry/infill-train@sha256:...", ...}, which `make images` writes; it
is read when the pipeline is compiled. KFP's cache key contains the reference, so a changed image with a new digest is a
miss.
"""

import json
import os
from typing import Final

from infill import __version__, storage
from infill.errors import InputError
from infill.stages import RAY_STAGES
from infill.text import read_text

NAMES: Final = ("pipeline", "train", "transformer", "predictor")
IN_PROCESS: Final = "INFILL_IN_PROCESS"
"""Environment variable: "1" if the compiled pipeline runs without KubeRay, as under KFP's Docker runner."""


def image(name: str) -> str:
    """Return the image of that name: by digest if INFILL_IMAGES is set, else by this release's tag.

    Raises ValueError for an unknown name, InputError if the file does not contain it.
    """
    if name not in NAMES:
        raise ValueError(f"unknown image {name!r}; choose one of {', '.join(NAMES)}")
    if file := os.environ.get("INFILL_IMAGES"):
        try:
            return str(json.loads(read_text(storage.local_path(file)))[name])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} does not name the image {name} ({error!r}): run images/build.sh again") from error
    return f"infill-{name}:{__version__}"


def step(stage: str) -> str:
    """Return the image of a stage's step: `pipeline`, or `train` if the step itself does the work of a RayJob."""
    return image("train" if stage in RAY_STAGES and os.environ.get(IN_PROCESS) == "1" else "pipeline")
