"""Names of the pods of a run's steps, which KFP's API does not report.

KFP's tasks are the nodes of an Argo workflow. For each the API gives the last part of the node's path and the ids of
the nodes that follow, but neither its own id nor its pod. Argo makes an id of the path, such as
`infill-x7k2p.root.corpus.executor(0)`, and KFP a pod's name of id and template, so both can be computed.
"""

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

ATTEMPT: Final = re.compile(r"(.+)\.executor(?:\((\d+)\))?")
"""The path of a step's container, with the number of the attempt if the step may be retried."""
TEMPLATE: Final = "system-container-impl"
"""KFP's template of steps' containers; that of steps which may be retried begins with `retry-`."""


def pods(details: Iterable[Mapping[str, Any]], keys: Set[str]) -> list[str]:
    """Return the pods of the tasks named `keys`, among all `details` of a run, in the order of their attempts."""
    attempts: dict[str, set[int]] = {}
    for match in filter(None, map(ATTEMPT.fullmatch, _paths(list(details)))):
        if match[1].rpartition(".")[2] in keys:
            attempts.setdefault(match[1], set()).update([int(match[2])] if match[2] else [])
    names = []
    for step, numbers in attempts.items():
        workflow = step.partition(".")[0]
        retried = [f"{workflow}-retry-{TEMPLATE}-{fnv(f'{step}.executor({number})')}" for number in sorted(numbers)]
        names += retried or [f"{workflow}-{TEMPLATE}-{fnv(f'{step}.executor')}"]
    return names


def fnv(text: str) -> int:
    """Return the 32-bit FNV-1a hash of a text."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def _paths(details: list[Mapping[str, Any]]) -> list[str]:
    """Return the paths of a workflow's nodes: those of the tasks' names whose ids are children of tasks."""
    ids = {str(child.get("pod_name")) for task in details for child in task.get("child_tasks") or ()}
    names = sorted({str(task.get("display_name")) for task in details})
    paths = sorted({each.rpartition("-")[0] for each in ids})[:1]
    for path in paths:
        for name in names:
            if f"{paths[0]}-{fnv(f'{path}.{name}')}" in ids:
                paths.append(f"{path}.{name}")
    return paths[1:]
