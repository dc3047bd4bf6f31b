"""Recurring runs of the pipeline on Kubeflow Pipelines, each found again by its name.

KFP cannot change a recurring run and allows several of one name. A change therefore creates another one and then
removes the old one; a call that is repeated after a kill completes this.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from infill.errors import InputError
from pipelines.service import KfpClient, Thing
from pipelines.submit import EXPERIMENT, prepare

ACTIVE: Final = frozenset({"PENDING", "RUNNING", "CANCELING", "PAUSED"})
"""States of a run that has not ended."""
_CONTENT: Final = "content "
"""The last part of a description begins so; the digest of everything that the recurring run was made from follows."""


def put(
    service: KfpClient, name: str, when: Thing, parameters: Mapping[str, Any], *, service_account: str = ""
) -> dict[str, Any]:
    """Start runs with `parameters` at the times of the trigger `when`, by the one enabled recurring run of that name.

    An equal one is kept, and enabled again; another is created before the others are disabled and, unless one of their
    runs has not ended, deleted. Runs do not overlap, and those that were missed are not made up for. Raises the errors
    of `submit.prepare`.
    """
    template = prepare(service, parameters, service_account=service_account)
    wanted = {
        "display_name": name,
        **template.body,
        "trigger": when,
        "max_concurrency": "1",
        "no_catchup": True,
        "mode": "ENABLE",
    }
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    known = service.recurring(template.body["experiment_id"], name)
    kept = next((each for each in known if _content(each) == digest), None)
    if kept is None:
        about = f"infill pipeline schedule set; version {template.version}; {_CONTENT}{digest}"
        current = service.recur({**wanted, "description": about})
    else:
        current = {**kept, "status": "ENABLED"}
        if not _is_enabled(kept):
            service.enable(str(kept["recurring_run_id"]))
    old = [each for each in known if each["recurring_run_id"] != current["recurring_run_id"]]
    _remove(service, template.body["experiment_id"], old)
    state = "created" if not known else "replaced" if kept is None else "unchanged" if _is_enabled(kept) else "enabled"
    return {**describe({"status": "ENABLED", **current}), "state": state, "version": template.version}


def _content(recurring: Thing) -> str:
    return str(recurring.get("description") or "").rpartition(_CONTENT)[2]


def _is_enabled(recurring: Thing) -> bool:
    return recurring.get("status") == "ENABLED"


def _remove(service: KfpClient, experiment: str, old: Sequence[Thing]) -> None:
    """Disable the recurring runs `old`; delete those whose runs have all ended.

    KFP owns a run through its recurring run, so that deleting it could end the run; the next call deletes it.
    """
    for each in old:
        if _is_enabled(each):
            service.disable(str(each["recurring_run_id"]))
    busy = {run.get("recurring_run_id") for run in service.latest_runs(experiment) if run.get("state") in ACTIVE}
    for each in old:
        if each["recurring_run_id"] not in busy:
            service.delete_recurring(str(each["recurring_run_id"]))


def describe(recurring: Thing) -> dict[str, Any]:
    """Return the name, id, state, times and parameters of a recurring run."""
    when = recurring.get("trigger") or {}
    times = (when.get("cron_schedule") or {}).get("cron")
    seconds = (when.get("periodic_schedule") or {}).get("interval_second")
    return {
        "name": recurring.get("display_name", ""),
        "id": recurring["recurring_run_id"],
        "status": recurring.get("status", ""),
        **({"cron": times} if times else {"every_s": int(seconds or 0)}),
        "parameters": (recurring.get("runtime_config") or {}).get("parameters") or {},
    }


def named(service: KfpClient, name: str = "") -> list[Thing]:
    """Return the pipeline's recurring runs, or those of one name. Raises InputError if none has that name."""
    experiment = service.find_experiment(EXPERIMENT)
    known = service.recurring(experiment, name) if experiment else []
    if name and not known:
        raise InputError(f"there is no schedule {name!r}: see infill pipeline schedule list")
    return known


def switch(service: KfpClient, name: str, *, on: bool) -> dict[str, str]:
    """Enable or disable the schedule of that name. Raises InputError if there is none."""
    known = sorted(named(service, name), key=lambda each: str(each.get("created_at", "")))
    for each in known[-1:] if on else known:
        (service.enable if on else service.disable)(str(each["recurring_run_id"]))
    return {"name": name, "status": "ENABLED" if on else "DISABLED"}


def delete(service: KfpClient, name: str) -> dict[str, str]:
    """Delete the schedule of that name; a run in progress may end with it. Raises InputError if there is none."""
    for each in named(service, name):
        service.delete_recurring(str(each["recurring_run_id"]))
    return {"name": name, "status": "DELETED"}
