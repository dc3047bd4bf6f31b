"""Submitting the compiled pipeline to Kubeflow Pipelines."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infill.errors import ServiceError
from pipelines.full import compile_pipeline


def submit(host: str, store: str, preset: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Start a run of the pipeline on the KFP at `host`; return its id and URL.

    The token, if the endpoint wants one, is read from KFP_TOKEN. Raises ServiceError when the API refuses the run.
    """
    from kfp import Client
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        compile_pipeline(compiled)
        try:
            client = Client(host=host, existing_token=os.environ.get("KFP_TOKEN"))
            run = client.create_run_from_pipeline_package(
                str(compiled),
                arguments={"store": store, "preset": preset, "settings": dict(settings)},
                run_name=f"infill-{preset}",
            )
        except (ApiException, HTTPError, OSError, RuntimeError) as error:
            raise ServiceError(f"Kubeflow Pipelines at {host} did not take the run: {error}") from error
    return {"run": str(run.run_id), "url": f"{host.rstrip('/')}/#/runs/details/{run.run_id}"}
