"""The end of a canary: the candidate of a registered model becomes the champion, or is rolled back.

The transformer compares both models and stops a worse one by itself. This module reads its metrics, decides once
enough users have answered, and records that in MLflow. Every step may be repeated after a kill: the counts are the
transformer's, and the decision is a tag of the version before anything follows from it.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import httpx

from infill import proxies
from infill.api_key import KEY_VARIABLE, api_key, headers
from infill.config import DeployConfig
from infill.errors import InputError, ServiceError
from infill.release import deploy, registry
from infill.release.registry import Version

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

STABLE, CANDIDATE = "stable", "candidate"
PROMOTED: Final = "promoted"
ROLLED_BACK: Final = "rolled back"
ANSWER_S: Final = 10.0
"""Seconds to wait for the metrics of a transformer."""

REFUSALS: Final = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)

Say = Callable[[str], None]
Apply = Callable[[Version, bool], None]
"""A function of a version and whether it was promoted, which changes what serves."""


def _stderr(line: str) -> None:
    sys.stderr.write(f"[infill] {line}\n")
    sys.stderr.flush()


class UndecidedError(ServiceError):
    """The error for a canary that has not seen enough in the given time; the canary continues."""


class AbsentError(ServiceError):
    """The error for a transformer whose metrics cannot be read now."""


@dataclass(frozen=True, kw_only=True)
class CanaryPatience:
    """The number of outcomes of each model that a promotion needs, and the time to wait for them."""

    requests: int = 500
    suggestions: int = 200
    """Suggestions that were accepted or rejected; 0 decides without."""
    seconds: float = 86_400.0
    pause: float = 5.0


@dataclass(frozen=True, kw_only=True)
class SideFigures:
    """The outcomes of one model."""

    requests: int
    failed: int
    seconds: float
    """Mean seconds of an answer."""
    accepted: int
    rejected: int

    def metrics(self) -> dict[str, float]:
        """Return the figures as metrics; without suggestions there is no acceptance."""
        decided = self.accepted + self.rejected
        acceptance = {"acceptance": self.accepted / decided} if decided else {}
        return {**{name: float(value) for name, value in asdict(self).items()}, **acceptance}


@dataclass(frozen=True, kw_only=True)
class CanaryFigures:
    """The outcomes of both models that the transformers have seen."""

    stable: SideFigures
    candidate: SideFigures
    digests: frozenset[str]
    """Digests of the candidate's model, as the transformers know it; equal if all is well."""
    weight: float
    reasons: tuple[str, ...]
    """The reasons of the transformers that have rolled the candidate back."""

    def lacking(self, patience: CanaryPatience) -> str:
        """Return what is still too little for a promotion, as text; empty if nothing is."""
        parts = []
        for side, seen in ((STABLE, self.stable), (CANDIDATE, self.candidate)):
            decided = seen.accepted + seen.rejected
            if seen.requests < patience.requests:
                parts.append(f"{seen.requests} of {patience.requests} requests of the {side} model")
            if decided < patience.suggestions:
                parts.append(f"{decided} of {patience.suggestions} decided suggestions of the {side} model")
        return ", ".join(parts)


def read(urls: Sequence[str]) -> CanaryFigures:
    """Return the sums of what the transformers at `urls` have seen since they started.

    Raises AbsentError if one does not answer, InputError if one has no candidate or refuses the key in INFILL_API_KEY.
    """
    samples = [sample for url in urls for sample in _samples(url)]

    def total(name: str, **labels: Iterable[str]) -> float:
        return sum(each.value for each in samples if each.name == name and _has(each, labels))

    def side(name: str) -> SideFigures:
        models = {each.labels["model"] for each in samples if each.labels.get("side") == name}
        answers = total("infill_canary_answer_seconds_count", side=[name])
        return SideFigures(
            requests=int(total("infill_canary_requests_total", side=[name])),
            failed=int(total("infill_canary_requests_total", side=[name], ended=["failed"])),
            seconds=total("infill_canary_answer_seconds_sum", side=[name]) / max(answers, 1.0),
            accepted=int(total("infill_telemetry_accepted_total", model=models)),
            rejected=int(total("infill_telemetry_rejected_total", model=models)),
        )

    rolled_back = {each.labels["reason"] for each in samples if each.name == "infill_canary_rollbacks_total"}
    return CanaryFigures(
        stable=side(STABLE),
        candidate=side(CANDIDATE),
        digests=frozenset(each.labels["digest"] for each in samples if each.name == "infill_canary_candidate"),
        weight=max(each.value for each in samples if each.name == "infill_canary_weight"),
        reasons=tuple(sorted(rolled_back)),
    )


def _has(sample: "Sample", labels: Mapping[str, Iterable[str]]) -> bool:
    return all(sample.labels.get(label, "") in values for label, values in labels.items())


def _samples(url: str) -> list["Sample"]:
    from prometheus_client.parser import text_string_to_metric_families

    key = api_key()
    try:
        with proxies.client(url, timeout=ANSWER_S, headers=headers(key)) as client:
            answer = client.get("metrics")
        if answer.status_code in REFUSALS:
            raise InputError(_refused(url, answer.status_code, key))
        answer.raise_for_status()
        samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise AbsentError(
            f"the metrics of {url} cannot be read ({error}): check that a transformer runs there"
        ) from error
    if not any(sample.name == "infill_canary_weight" for sample in samples):
        raise InputError(f"the server at {url} has no candidate: start its transformer with --candidate_predictor")
    return samples


def _refused(url: str, status: int, key: str) -> str:
    """Return why a server does not show its metrics, and what to do, as a sentence."""
    if not key:
        return f"the server at {url} asks for a key to show its metrics ({status}): put one into {KEY_VARIABLE}"
    if status == httpx.codes.UNAUTHORIZED:
        return f"the server at {url} refuses the key in {KEY_VARIABLE} ({status}): put a valid one there"
    return (
        f"the server at {url} does not show its metrics to the key in {KEY_VARIABLE} ({status}): allow it there, or use"
        " another one"
    )


def decide(
    name: str,
    urls: Sequence[str],
    patience: CanaryPatience,
    *,
    served: DeployConfig | None = None,
    output: str = "",
    say: Say = _stderr,
    sleep: Callable[[float], None] = time.sleep,
    apply: Apply | None = None,
) -> dict[str, Any]:
    """Wait until the canary of the candidate of `name` is decided; promote the candidate or roll it back.

    With `output` a promoted model's deployment record is written there, with the limits in `served`. `sleep` waits
    between two looks; what it raises ends the wait and leaves the canary as it is. `apply` gets the version, and
    whether it was promoted, before the candidacy ends; if it fails, a repeated call calls it again. Returns the
    `outcome`, the `version` and its `model_uri`, and the figures of both models. Raises InputError when there is no
    candidate or the transformers try another model, UndecidedError when the time is up, ServiceError when another model
    has become candidate or champion.
    """
    version = registry.candidate(name)
    if version is None:
        raise InputError(f"the registered model {name!r} has no candidate: see register.canary")
    if not version.tags.get(registry.CANARY):
        figures = _wait(version, urls, patience, say, sleep)
        _record(version, figures)
        version = _candidate_again(version)
    outcome = version.tags[registry.CANARY]
    if outcome == PROMOTED:
        _promote(version, served, output)
    else:
        registry.withdraw(version)
    if apply is not None:
        apply(version, outcome == PROMOTED)
    registry.end_candidacy(version)
    say(f"version {version.version} of {name} is {outcome}")
    return {
        "outcome": outcome,
        "version": version.version,
        "model_uri": version.model_uri,
        **json.loads(version.tags[registry.CANARY_FIGURES]),
    }


def _wait(
    version: Version, urls: Sequence[str], patience: CanaryPatience, say: Say, sleep: Callable[[float], None]
) -> CanaryFigures:
    """Return the figures once they suffice for a decision."""
    deadline, shown = time.monotonic() + patience.seconds, ""
    figures = read(urls)
    while True:
        _check(version, figures)
        lacking = figures.lacking(patience)
        if figures.reasons or not lacking:
            return figures
        if lacking != shown:
            say(f"version {version.version} of {version.name}: {lacking}")
            shown = lacking
        if time.monotonic() + patience.pause > deadline:
            raise UndecidedError(
                f"the canary of {version.name} version {version.version} is not decided after {patience.seconds:g} s"
                f" ({lacking}); it continues: run the command again"
            )
        sleep(patience.pause)
        try:
            figures = read(urls)
        except AbsentError as error:  # a transformer that restarts counts from zero
            say(str(error))


def _check(version: Version, figures: CanaryFigures) -> None:
    """Raise InputError unless the transformers try the model of `version`."""
    named = f"{version.name} version {version.version}"
    if figures.digests != {version.model_digest}:
        tried = ", ".join(sorted(each[:12] or "unknown" for each in figures.digests)) or "unknown"
        raise InputError(
            f"the model on trial ({tried}) is not {named} ({version.model_digest[:12]}): start the transformer with"
            f" --candidate_model {version.model_uri}, or infill serve with --candidate"
        )
    if not figures.weight and not figures.reasons:
        raise InputError(f"the canary of {named} gets no requests: its weight is 0; set --canary_weight")


def _record(version: Version, figures: CanaryFigures) -> None:
    """Write the decision and its figures to MLflow, the decision last: it holds from then on."""
    _candidate_again(version)
    sides = {STABLE: figures.stable.metrics(), CANDIDATE: figures.candidate.metrics()}
    registry.log(
        version,
        {f"canary/{side}_{metric}": value for side, values in sides.items() for metric, value in values.items()},
    )
    outcome = f"{ROLLED_BACK}: {', '.join(figures.reasons)}" if figures.reasons else PROMOTED
    _set_outcome(version, outcome, sides)


def give_up(version: Version, reason: str) -> None:
    """Record that a candidate was rolled back without a trial; `decide` completes that."""
    _set_outcome(_candidate_again(version), f"{ROLLED_BACK}: {reason}", {})


def _set_outcome(version: Version, outcome: str, sides: Mapping[str, Mapping[str, float]]) -> None:
    tags = {registry.CANARY_FIGURES: json.dumps(sides), registry.CANARY_AT: datetime.now(UTC).isoformat("T", "seconds")}
    registry.set_tags(version, {**tags, registry.CANARY: outcome})


def _candidate_again(version: Version) -> Version:
    """Return the version in its current state. Raises ServiceError if it is no longer the candidate."""
    now = registry.candidate(version.name)
    if now is None or now.version != version.version:
        other = "none" if now is None else f"version {now.version}"
        raise ServiceError(
            f"the candidate of {version.name} was version {version.version} and is {other} now; nothing was decided"
        )
    return now


def _promote(version: Version, served: DeployConfig | None, output: str) -> None:
    champion = registry.champion(version.name)
    before = version.tags.get(registry.REPLACED, "")
    if champion is not None and champion.version not in {version.version, before}:
        raise ServiceError(
            f"version {champion.version} of {version.name} became the champion during the canary of version"
            f" {version.version}, which was compared with version {before}; run the pipeline again"
        )
    deploy.promote(served or DeployConfig(), version, output=output)


def show(name: str) -> dict[str, Any]:
    """Return the champion and the candidate of the registered model `name`, each null if there is none."""
    versions = {"champion": registry.champion(name), "candidate": registry.candidate(name)}
    return {alias: None if version is None else _shown(version) for alias, version in versions.items()}


def _shown(version: Version) -> dict[str, str]:
    outcome = version.tags.get(registry.CANARY, "")
    return {
        "version": version.version,
        "model_uri": version.model_uri,
        "model_digest": version.model_digest,
        "decision": version.tags.get(registry.DECISION_URI, ""),
        **({"canary": outcome} if outcome else {}),
    }
