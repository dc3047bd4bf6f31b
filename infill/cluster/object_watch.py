"""A watch of one object of the cluster that survives interruptions."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace

from infill.cluster.answers import ClusterApiError, ClusterRefusedError, Retry, refusal
from infill.cluster.api import Api, Manifest


def follow(api: Api, resource: str, name: str, *, tick: int, outage: float) -> Iterator[Manifest | None]:
    """Yield the object at first, after each change, and at least every `tick` seconds; None while it does not exist.

    A watch that ends or breaks is resumed at the last version seen; if the server no longer has that version (410
    Gone), the object is read again. Raises UnreachableError when the API server has been unavailable for `outage`
    seconds, and RefusedError when it refuses.
    """
    api = replace(api, outage=outage)
    retry = Retry(outage=outage, grace=api.grace)
    version, state = "", None
    while True:
        started = time.monotonic()
        try:
            if not version:
                state, version = _read(api, resource, name)
                yield state
            for event in api.watch(resource, version=version, fields=f"metadata.name={name}", seconds=tick):
                retry.reset()
                kind, thing = event["type"], event["object"]
                if kind == "ERROR":
                    version = ""
                    raise _ended(api, resource, thing)
                version = thing["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    state = None if kind == "DELETED" else thing
                    yield state
            retry.reset()
            yield state
            time.sleep(max(0.0, min(1.0, tick) - (time.monotonic() - started)))  # a proxy may end watches at once
        except ClusterApiError as error:
            if isinstance(error, ClusterRefusedError) and error.status == 410:
                version = ""
                continue
            retry.wait(error)


def _read(api: Api, resource: str, name: str) -> tuple[Manifest | None, str]:
    listing = api.list(resource, fields=f"metadata.name={name}")
    return next(iter(listing["items"]), None), listing["metadata"]["resourceVersion"]


def _ended(api: Api, resource: str, status: Manifest) -> ClusterRefusedError:
    """Return the error event of a watch as the refusal that an answer would have been."""
    return refusal(
        int(status.get("code") or 500),
        json.dumps(status),
        method="GET",
        path=f"watch of {resource}",
        namespace=api.namespace,
        resource=resource,
        proven=api.proven,
    )
