"""The register stage: compare winner and champion on the same holes, then register the winner.

The champion is state outside the artifacts, so the manifest records it as observed (`manifest.once`). A repeated run
whose own model is the champion by now is compared with the champion of its first attempt, and finds its work done.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

from infill import manifest, prompt, storage, tracking
from infill.config import EvaluateConfig, RegisterConfig
from infill.errors import InputError, ServiceError
from infill.metrics import METRICS
from infill.release import gate, registry
from infill.release.gate import Decision, Record
from infill.release.registry import Version
from infill.train import card

STAGE: Final = "register"
VERSION: Final = 2

DECISION_FILE: Final = "decision.json"
_PIN: Final = f"{manifest.SCRATCH}/champion.json"


def run(
    config: RegisterConfig,
    examples: str,
    model_base: str,
    model_sft: str,
    model_dpo: str,
    evaluation_base: str,
    evaluation_sft: str,
    evaluation_dpo: str,
    *,
    output: str,
) -> dict[str, float]:
    """Decide which model is released, register it, and write decision.json.

    Returns `passed` and the winner's value of the deciding metric. Raises InputError when MLFLOW_TRACKING_URI is unset
    or a metric is unknown, ServiceError when MLflow is unreachable.
    """
    unknown = {config.metric, *(name for name, _ in (*config.floors, *config.ceilings))} - set(METRICS)
    if unknown:
        raise InputError(f"register: unknown metric {', '.join(sorted(unknown))}; choose from {', '.join(METRICS)}")
    models = dict(zip(gate.STAGES, (model_base, model_sft, model_dpo), strict=True))
    evaluations = dict(zip(gate.STAGES, (evaluation_base, evaluation_sft, evaluation_dpo), strict=True))
    inputs = {"examples": manifest.digest_of(examples)}
    inputs |= {f"model_{name}": manifest.digest_of(uri) for name, uri in models.items()}
    inputs |= {f"evaluation_{name}": manifest.digest_of(uri) for name, uri in evaluations.items()}
    own = {inputs[f"model_{name}"] for name in models}
    champion, withdrawn = _champion(config, output, own), _withdrawn(config, own)
    observed = {"champion": _identity(champion), "withdrawn": " ".join(sorted(withdrawn))}
    _clear_outdated(config, inputs, observed, output)

    def body() -> Mapping[str, float]:
        storage.write_json(storage.join(output, _PIN), None if champion is None else dataclasses.asdict(champion))
        records, objections = _candidates(config, evaluations)
        incumbent, more = _incumbent(config, examples, evaluations, records, champion, output)
        decision = gate.decide(
            config,
            records,
            incumbent,
            digests={name: inputs[f"model_{name}"] for name in models},
            champion_digest="" if champion is None else champion.model_digest or "unknown",
            objections=(*objections, *more),
        )
        decision = _refuse_withdrawn(decision, withdrawn.get(inputs[f"model_{decision.winner}"]))
        value = _describe(config, decision, models, records, incumbent, champion, output)
        return _carry_out(config, decision, value, evaluations[decision.winner], output)

    return manifest.once(
        stage=STAGE, version=VERSION, config=config, inputs=inputs, output=output, body=body, observed=observed
    )


def _champion(config: RegisterConfig, output: str, own: set[str]) -> Version | None:
    """Return the champion to compare with: the registry's, or its predecessor if the champion is one of `own`."""
    now = registry.champion(config.name)
    if now is not None and now.model_digest in own:
        for file, field in ((DECISION_FILE, "champion_before"), (_PIN, "")):
            if storage.exists(storage.join(output, file)):
                value = storage.read_json(storage.join(output, file))
                before = value[field] if field else value
                return None if before is None else registry.version(config.name, before["version"])
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


def _clear_outdated(
    config: RegisterConfig, inputs: Mapping[str, str], observed: Mapping[str, str], output: str
) -> None:
    """Remove an earlier decision in `output` that no longer matches the registry."""
    done = manifest.find(output)
    if done is None or done.key != manifest.key(STAGE, VERSION, config, inputs):
        return
    decision = storage.read_json(storage.join(output, DECISION_FILE))
    lost = decision["registered"] is not None and registry.find(config.name, decision["model_digest"]) is None
    if lost or any(done.inputs.get(name) != value for name, value in observed.items()):
        storage.remove(output)


def load_record(evaluation: str, metric: str) -> Record:
    """Return the gate's record of the evaluation artifact at `evaluation`. Raises InputError when it is damaged."""
    manifest.verify(manifest.load(evaluation))
    record = storage.read_json(storage.join(evaluation, "record.json"))
    results = storage.join(evaluation, "results.parquet")
    try:
        table = storage.read_table(results, ["id", metric])
        scores = {str(row["id"]): row[metric] for row in table.to_pylist()}
        return Record(
            model_uri=record["model_uri"],
            model_digest=record["model_digest"],
            benchmark_digest=record["benchmark_digest"],
            metrics=record["metrics"],
            scores={hole: math.nan if score is None else float(score) for hole, score in scores.items()},
        )
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{results} and the record next to it lack {metric} for some holes ({error}); evaluate the model again"
        ) from error


def _candidates(config: RegisterConfig, evaluations: Mapping[str, str]) -> tuple[dict[str, Record], list[str]]:
    """Return the readable records, and a sentence for each unreadable one."""
    records: dict[str, Record] = {}
    objections: list[str] = []
    for name, uri in evaluations.items():
        try:
            records[name] = load_record(uri, config.metric)
        except InputError as error:
            objections.append(f"The evaluation of {name} cannot be used: {error}.")
    return records, objections


def _incumbent(
    config: RegisterConfig,
    examples: str,
    evaluations: Mapping[str, str],
    records: Mapping[str, Record],
    champion: Version | None,
    output: str,
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
        again = storage.join(output, manifest.SCRATCH, "champion")
        _evaluate_like(evaluations, examples, champion.model_uri, again)
        return load_record(again, config.metric), []
    except InputError as error:
        return None, [f"{named} cannot be evaluated: {error}."]


def _stored(config: RegisterConfig, evaluation: str) -> Record | None:
    """Return the evaluation of the champion's registration; None if it is missing or lacks the metric."""
    try:
        return load_record(evaluation, config.metric) if evaluation else None
    except InputError:
        return None


def _evaluate_like(evaluations: Mapping[str, str], examples: str, model: str, output: str) -> None:
    """Evaluate `model` on `examples` with the settings of the candidates' evaluation."""
    from infill.evaluate import stage as evaluate

    settings = manifest.load(evaluations[gate.STAGES[0]]).config
    evaluate.run(EvaluateConfig(**settings), examples, model, output=output)


def _refuse_withdrawn(decision: Decision, withdrawn: Version | None) -> Decision:
    if withdrawn is None or not decision.passed:
        return decision
    reason = (
        f"{decision.reason} But {decision.winner} is {withdrawn.name} version {withdrawn.version}, which was rolled"
        f" back on {withdrawn.tags[registry.ROLLED_BACK]}; delete its tag {registry.ROLLED_BACK} in MLflow to allow it"
        " again."
    )
    return dataclasses.replace(decision, passed=False, reason=reason)


def _describe(
    config: RegisterConfig,
    decision: Decision,
    models: Mapping[str, str],
    records: Mapping[str, Record],
    incumbent: Record | None,
    champion: Version | None,
    output: str,
) -> dict[str, Any]:
    """Return the content of decision.json in the folder `output`, before anything is registered."""
    uri = models[decision.winner]
    shown = {**records, **({} if incumbent is None else {"champion": incumbent})}
    return {
        "winner": decision.winner,
        "passed": decision.passed,
        "reason": decision.reason,
        "metric": config.metric,
        "comparison": gate.as_json(decision.comparison),
        **manifest.pointer("model", uri, output),
        "model_digest": manifest.digest_of(uri),
        "prompt_format_hash": prompt.load_format(storage.fetch(uri)).hash,
        "evaluation": {name: record.metrics for name, record in shown.items()},
        "champion_before": None if champion is None else dataclasses.asdict(champion),
        "registered": None,
    }


def _carry_out(
    config: RegisterConfig, decision: Decision, value: dict[str, Any], evaluation: str, output: str
) -> Mapping[str, float]:
    """Register the winner if it passed, then write decision.json; return the stage's metrics."""
    version = _release(config, decision, value, evaluation) if decision.passed else None
    if version is not None:
        value["registered"] = {"name": version.name, "version": version.version}
    file = storage.join(output, DECISION_FILE)
    storage.write_json(file, value)
    if version is not None:
        registry.set_tags(version, {registry.DECISION: storage.sha256(file)})
        record = storage.read_json(storage.join(evaluation, "record.json"))
        model_card = storage.join(output, card.RELEASED_FILE)
        storage.write_bytes(model_card, card.complete(value["model_uri"], record, decision.reason).encode())
        tracking.current().artifact(storage.fetch(model_card))
    verdict = "passed" if decision.passed else "refused"
    tracking.current().tags({"infill.winner": decision.winner, "infill.gate": verdict})
    won = value["evaluation"].get(decision.winner, {}).get(config.metric, {}).get("value", 0.0)
    return {"passed": float(decision.passed), config.metric: won}


def _release(config: RegisterConfig, decision: Decision, value: Mapping[str, Any], evaluation: str) -> Version:
    """Register the winner and make it the champion. Raises ServiceError if there is another champion by now."""
    tracker = tracking.current()
    tags = {
        registry.MODEL_DIGEST: value["model_digest"],
        registry.MANIFEST_SHA256: storage.sha256(storage.join(value["model_uri"], manifest.FILE_NAME)),
        registry.PROMPT_FORMAT: value["prompt_format_hash"],
        registry.EVALUATION_URI: evaluation,
        registry.EVALUATION_DIGEST: manifest.digest_of(evaluation),
        registry.RUN_ID: tracker.parent_id or tracker.run_id,
        registry.STAGE: decision.winner,
    }
    version = registry.register(
        config.name, model_uri=value["model_uri"], tags=tags, description=f"{decision.winner}: {decision.reason}"
    )
    now, before = registry.champion(config.name), value["champion_before"]
    if now is not None and now.version not in {version.version, before and before["version"]}:
        raise ServiceError(
            f"version {now.version} of {config.name} became the champion during the comparison; run again"
        )
    registry.promote(version)
    return version
