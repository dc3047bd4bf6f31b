"""The register stage: compare winner and champion on the same holes, then register the winner.

The champion is state outside the artifacts, so its identity is part of the key: another champion means another
decision. A repeated run whose own model is the champion by now is compared with the champion that its model replaced,
so it finds its work done.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from infill import manifest, prompt, storage, tracking
from infill.artifacts import decision as decisions
from infill.artifacts import evaluation as evaluations
from infill.artifacts.examples import read_holes
from infill.config import EvaluateConfig, RegisterConfig
from infill.errors import InputError, ServiceError
from infill.metrics import METRICS
from infill.release import gate, registry, signature
from infill.release.gate import GateDecision, Record
from infill.release.registry import Version
from infill.stages.contract import Call
from infill.stages.table import MODELS
from infill.train import card

VERSION: Final = 6


def outside(config: RegisterConfig, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the identity of the champion to compare with, and the digests of models that were rolled back.

    Raises InputError when MLFLOW_TRACKING_URI is unset, ServiceError when MLflow is unreachable.
    """
    own = _own(digests)
    return {"champion": _identity(_champion(config, own)), "withdrawn": " ".join(sorted(_withdrawn(config, own)))}


def body(call: Call[RegisterConfig]) -> Mapping[str, float]:
    """Decide which model is released; write decision.json and, for a model that passed, its card and a signature.

    Returns `passed` and the winner's value of the deciding metric. Raises InputError when a metric is unknown.
    """
    config = call.settings
    unknown = {config.metric, *(name for name, _ in (*config.floors, *config.ceilings))} - set(METRICS)
    if unknown:
        raise InputError(f"register: unknown metric {', '.join(sorted(unknown))}; choose from {', '.join(METRICS)}")
    digests, own = _models(call.digests), _own(call.digests)
    champion = _champion(config, own)
    records, objections = _candidates(config, call)
    incumbent, more = _incumbent(config, call, records, champion)
    decision = gate.decide(
        config,
        records,
        incumbent,
        digests=digests,
        champion_digest="" if champion is None else champion.model_digest or "unknown",
        objections=(*objections, *more),
    )
    decision = _refuse_withdrawn(decision, _withdrawn(config, own).get(digests[decision.winner]))
    if config.canary and champion is not None:
        decision = _refuse_the_same(decision, _models(call.inputs)[decision.winner], champion)
    value = _describe(config, decision, _models(call.inputs), records, incumbent, champion, call.output)
    return _record(config, decision, value, call)


def apply(call: Call[RegisterConfig]) -> Mapping[str, float]:
    """Register the winner if it passed, and make it the champion, or the candidate of a canary.

    Raises ServiceError if another model became the champion during the comparison.
    """
    decision = decisions.read(call.output)
    if not decision["passed"]:
        return {}
    evaluation = _evaluations(call)[decision["winner"]]
    tracker, before = tracking.current(), decision["champion_before"]
    tags = {
        registry.MODEL_DIGEST: decision["model_digest"],
        registry.MANIFEST_SHA256: storage.sha256(storage.join(_winner(call, decision), manifest.FILE_NAME)),
        registry.PROMPT_FORMAT: decision["prompt_format_hash"],
        registry.EVALUATION_URI: evaluation,
        registry.EVALUATION_DIGEST: manifest.digest_of(evaluation),
        registry.RUN_ID: tracker.parent_id or tracker.run_id,
        registry.STAGE: decision["winner"],
    }
    version = registry.register(
        call.settings.name,
        model_uri=_winner(call, decision),
        tags=tags,
        description=f"{decision['winner']}: {decision['reason']}",
    )
    now = registry.champion(call.settings.name)
    if now is not None and now.version not in {version.version, before and before["version"]}:
        raise ServiceError(
            f"version {now.version} of {call.settings.name} became the champion during the comparison; run again"
        )
    replaced = before["version"] if before else ""
    decision_of = {registry.DECISION_URI: call.output, registry.DECISION: decisions.digest(call.output)}
    registry.set_tags(version, {registry.REPLACED: replaced, **decision_of})
    if decision["canary"] and now is not None:
        registry.nominate(version)
    else:
        registry.promote(version)
    return {"version": float(version.version)}


def _models(named: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of the models of a run, by the model's name."""
    return {name: named[f"model_{name}"] for name in MODELS}


def _evaluations(call: Call[RegisterConfig]) -> dict[str, str]:
    return {name: call.inputs[f"evaluation_{name}"] for name in MODELS}


def _own(digests: Mapping[str, str]) -> set[str]:
    return set(_models(digests).values())


def _winner(call: Call[RegisterConfig], decision: Mapping[str, Any]) -> str:
    return _models(call.inputs)[decision["winner"]]


def _champion(config: RegisterConfig, own: set[str]) -> Version | None:
    """Return the champion to compare with: the registry's, or the one that it replaced if it is one of `own`."""
    now = registry.champion(config.name)
    if now is not None and now.model_digest in own:
        replaced = now.tags.get(registry.REPLACED, "")
        return registry.version(config.name, replaced) if replaced else None
    return now


def _withdrawn(config: RegisterConfig, own: set[str]) -> dict[str, Version]:
    """Return the versions of the models with the digests `own` that were rolled back, by digest."""
    known = {digest: registry.find(config.name, digest) for digest in own}
    return {digest: version for digest, version in known.items() if version and registry.ROLLED_BACK in version.tags}


def _identity(champion: Version | None) -> str:
    """Return a text that identifies the champion and the state of its model in the store."""
    if champion is None:
        return "none"
    stored = manifest.find(champion.model_uri) if champion.model_uri else None
    return f"{champion.version}:{champion.model_digest}:{stored.digest if stored else 'missing'}"


def load_record(evaluation: str, metric: str) -> Record:
    """Return the gate's record of the evaluation artifact at `evaluation`. Raises InputError when it is damaged."""
    manifest.verify(manifest.load(evaluation))
    try:
        return _record_of(
            evaluations.read_record(evaluation),
            evaluations.read_results(evaluation, ["id", "language", metric]),
            metric,
        )
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{evaluations.results_file(evaluation)} and the record next to it lack {metric} for some holes ({error});"
            " evaluate the model again"
        ) from error


def _record_of(record: Mapping[str, Any], rows: pa.Table, metric: str) -> Record:
    """Return the gate's record from an evaluation's record and results."""
    scores = {str(row["id"]): row[metric] for row in rows.select(["id", metric]).to_pylist()}
    languages = {str(row["id"]): str(row["language"]) for row in rows.select(["id", "language"]).to_pylist()}
    return Record(
        model_uri=record["model_uri"],
        model_digest=record["model_digest"],
        benchmark_digest=record["benchmark_digest"],
        metrics=record["metrics"],
        scores={hole: math.nan if score is None else float(score) for hole, score in scores.items()},
        languages=languages,
        latency=record.get("latency"),
    )


def _candidates(config: RegisterConfig, call: Call[RegisterConfig]) -> tuple[dict[str, Record], list[str]]:
    """Return the readable records, and a sentence for each unreadable one."""
    records: dict[str, Record] = {}
    objections: list[str] = []
    for name, uri in _evaluations(call).items():
        try:
            records[name] = load_record(uri, config.metric)
        except InputError as error:
            objections.append(f"The evaluation of {name} cannot be used: {error}.")
    return records, objections


def _incumbent(
    config: RegisterConfig, call: Call[RegisterConfig], records: Mapping[str, Record], champion: Version | None
) -> tuple[Record | None, list[str]]:
    """Return the champion's record on the candidates' holes, from its registration or a new evaluation.

    Also returns sentences that explain why there is none.
    """
    if champion is None:
        return None, []
    named = f"The champion {champion.name} version {champion.version}"
    stored = _stored(config, champion.tags.get(registry.EVALUATION_URI, ""))
    if stored is not None and stored.benchmark_digest in {record.benchmark_digest for record in records.values()}:
        return stored, []
    try:
        if manifest.find(champion.model_uri) is None:
            return None, [f"{named} is gone: there is no model at {champion.model_uri}; put it back, or roll back."]
        return _evaluate(call, champion.model_uri), []
    except InputError as error:
        return None, [f"{named} cannot be evaluated: {error}."]


def _stored(config: RegisterConfig, evaluation: str) -> Record | None:
    """Return the evaluation of the champion's registration; None if it is missing or lacks the metric."""
    try:
        return load_record(evaluation, config.metric) if evaluation else None
    except InputError:
        return None


def _evaluate(call: Call[RegisterConfig], model: str) -> Record:
    """Evaluate `model` on the candidates' holes with the settings of their evaluation; return its record."""
    from infill.evaluate import holes as evaluate

    settings = EvaluateConfig(**manifest.load(_evaluations(call)[MODELS[0]]).config)
    holes = read_holes(call.inputs["examples"], "test", settings.holes)
    evaluation = evaluate.evaluate_model(settings, holes, model, call.scratch)
    record = evaluate.record(settings, holes, model, evaluation, call.output)
    return _record_of(record, evaluation.results, call.settings.metric)


def _refuse_withdrawn(decision: GateDecision, withdrawn: Version | None) -> GateDecision:
    if withdrawn is None or not decision.passed:
        return decision
    reason = (
        f"{decision.reason} But {decision.winner} is {withdrawn.name} version {withdrawn.version}, which was rolled"
        f" back on {withdrawn.tags[registry.ROLLED_BACK]}; delete its tag {registry.ROLLED_BACK} in MLflow to allow it"
        " again."
    )
    return dataclasses.replace(decision, passed=False, reason=reason)


def _refuse_the_same(decision: GateDecision, winner: str, champion: Version) -> GateDecision:
    """Refuse a trial of the champion's own weights: a run that starts from the champion has them as its base."""
    weights = _weights(winner)
    if not decision.passed or not weights or weights != _weights(champion.model_uri):
        return decision
    reason = (
        f"{decision.reason} But {decision.winner} has the weights of the champion, {champion.name} version"
        f" {champion.version}, so users would see no difference."
    )
    return dataclasses.replace(decision, passed=False, reason=reason)


def _weights(model: str) -> dict[str, Any]:
    """Return the digests of a model's own weights, without those of an adapter, by file name."""
    files = manifest.load(model).files
    return {name: entry["sha256"] for name, entry in files.items() if "/" not in name and name.endswith(".safetensors")}


def _describe(
    config: RegisterConfig,
    decision: GateDecision,
    models: Mapping[str, str],
    records: Mapping[str, Record],
    incumbent: Record | None,
    champion: Version | None,
    output: str,
) -> dict[str, Any]:
    """Return the content of decision.json in the folder `output`."""
    uri = models[decision.winner]
    shown = {**records, **({} if incumbent is None else {"champion": incumbent})}
    return {
        "name": config.name,
        "winner": decision.winner,
        "passed": decision.passed,
        "reason": decision.reason,
        "canary": config.canary and champion is not None,
        "metric": config.metric,
        **gate.as_json(decision),
        "latency": records[decision.winner].latency if decision.winner in records else None,
        **manifest.pointer("model", uri, output),
        "model_digest": manifest.digest_of(uri),
        "prompt_format_hash": prompt.load_format(storage.fetch(uri)).hash,
        "evaluation": {name: record.metrics for name, record in shown.items()},
        "champion_before": None if champion is None else dataclasses.asdict(champion),
    }


def _record(
    config: RegisterConfig, decision: GateDecision, value: dict[str, Any], call: Call[RegisterConfig]
) -> Mapping[str, float]:
    """Write decision.json and, for a model that passed, its card; return the stage's metrics."""
    decisions.write(call.output, value)
    if decision.passed:
        signature.sign_if_wanted(call.output)
        record = evaluations.read_record(_evaluations(call)[decision.winner])
        model_card = storage.join(call.output, card.RELEASED_FILE)
        storage.write_bytes(model_card, card.complete(_winner(call, value), record, decision.reason).encode())
        tracking.current().artifact(storage.fetch(model_card))
    verdict = "passed" if decision.passed else "refused"
    tracking.current().tags({"infill.winner": decision.winner, "infill.gate": verdict})
    won = value["evaluation"].get(decision.winner, {}).get(config.metric, {}).get("value", 0.0)
    return {"passed": float(decision.passed), config.metric: won}
