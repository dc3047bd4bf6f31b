"""One object of the cluster, followed through everything that happens to a watch."""

import time
from collections.abc import Iterator

from infill.cluster.api import PASSING, Api, Manifest, RefusedError, UnreachableError
from infill.errors import ServiceError


def follow(api: Api, resource: str, name: str, *, tick: int, outage: float) -> Iterator[Manifest | None]:
    """The object at first, after each change, and at least every `tick` seconds; None while it does not exist.

    A watch that ends or breaks off is taken up at the last version seen; when the server has forgotten that version
    (410 Gone), the object is read anew. Raises ServiceError when the API server is gone for `outage` seconds without a
    break, and RefusedError when it answers that it will not.
    """
    version, state, broken = "", None, 0.0
    while True:
        started = time.monotonic()
        try:
            if not version:
                state, version = _read(api, resource, name)
                yield state
            for event in api.watch(resource, version=version, fields=f"metadata.name={name}", seconds=tick):
                broken = 0.0
                kind, thing = event["type"], event["object"]
                if kind == "ERROR":
                    raise RefusedError(int(thing.get("code", 500)), f"the watch failed: {thing.get('message')}")
                version = thing["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    state = None if kind == "DELETED" else thing
                    yield state
            broken = 0.0
            yield state
            time.sleep(max(0.0, min(1.0, tick) - (time.monotonic() - started)))  # a proxy may end watches at once
        except RefusedError as error:
            if error.status != 410 and error.status not in PASSING:
                raise
            version = ""
            broken = _wait(broken, outage, error) if error.status != 410 else broken
        except UnreachableError as error:
            broken = _wait(broken, outage, error)


def _read(api: Api, resource: str, name: str) -> tuple[Manifest | None, str]:
    listing = api.list(resource, fields=f"metadata.name={name}")
    return next(iter(listing["items"]), None), listing["metadata"]["resourceVersion"]


def _wait(broken: float, outage: float, error: ServiceError) -> float:
    """Sleeps a little, longer as the outage lasts; returns when it began (0 is: it begins now)."""
    now = time.monotonic()
    lasted = now - broken if broken else 0.0
    if lasted > outage:
        raise ServiceError(
            f"the API server has been gone for {lasted:.0f} s: {error} The job may still run: retry this step to attach"
        ) from error
    time.sleep(min(30.0, max(0.2, lasted / 2), outage))
    return broken or now
