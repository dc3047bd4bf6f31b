"""Run the whole pipeline (preset `debug`) in the images of dist/images.json, each step in a read-only container.

The containers have no root, rights or network.

    INFILL_IMAGES=dist/images.json python images/pipeline.py OUT --repositories FOLDER

OUT must be writable for user 1000, or new. The output is the summary as JSON.
"""

import argparse
import json
import os
import shutil
import sys

from kfp import components, local

from components.images import IN_PROCESS
from infill import entry, tracking
from infill.cli_options import absolute_path
from infill.config import to_text
from infill.report import read_summary

USER = 1000
TMPFS = f"uid={USER},gid={USER},exec"


def main() -> int:
    """Run the pipeline and print its summary; return 0 if every step succeeded."""
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=absolute_path)
    parser.add_argument(
        "--repositories", type=absolute_path, required=True, help="folder with one folder per repository"
    )
    options = parser.parse_args()
    out = options.out
    shutil.copytree(options.repositories, out / "repositories", dirs_exist_ok=True)
    os.environ[IN_PROCESS] = "1"  # each step does its stage's work itself, without Ray jobs
    from pipelines.full import compile_pipeline  # reads the images' names when it is imported
    from pipelines.local import report_of

    compile_pipeline(out / "pipeline.yaml")
    environment = {"MLFLOW_TRACKING_URI": tracking.local_store(str(out)), "INFILL_IMAGE": "docker"}
    (out / "workspace").mkdir(exist_ok=True)
    for path in (out, *out.rglob("*")):
        shutil.chown(path, USER, USER)
    local.init(
        runner=local.DockerRunner(
            environment=environment,
            user=f"{USER}:{USER}",
            read_only=True,
            tmpfs={"/tmp": TMPFS, "/cache": TMPFS},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode="none",
            shm_size="1g",
        ),
        pipeline_root=str(out),
        workspace_root=str(out / "workspace"),
    )
    pipeline = components.load_component_from_file(str(out / "pipeline.yaml"))
    settings = {"corpus.sources": [f"dir:{out / 'repositories'}"]}
    pipeline(store=str(out / "store"), preset="debug", settings=to_text(settings))
    report = report_of(out)
    sys.stdout.write(json.dumps(read_summary(report.uri)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(entry.run("images/pipeline.py", main))
