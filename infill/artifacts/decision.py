"""The gate's decision: the artifact of the register stage."""

from collections.abc import Mapping
from typing import Any, Final

from infill import storage
from infill.errors import InputError

FILE: Final = "decision.json"
_IN_WORDS: Final = {
    "exact_match": "writes exactly what the author wrote in {:.0f} of 100 places",
    "eot_rate": "stops by itself in {:.0f} of 100 places",
    "over_generation": "continues after the right text in {:.0f} of 100 places",
}


def read(folder: str) -> dict[str, Any]:
    """Return the decision from the artifact at `folder`."""
    value: dict[str, Any] = storage.read_json(storage.join(folder, FILE))
    return value


def is_deployed_at_once(folder: str, *, tried_at_once: bool = False) -> bool:
    """Return whether the model in the decision at `folder` passed the gate and needs no canary first.

    With `tried_at_once`, as on a cluster, the deployment of a model that needs one is its canary.
    """
    decision = read(folder)
    return bool(decision["passed"] and (tried_at_once or not on_trial(decision)))


def on_trial(decision: Mapping[str, Any]) -> bool:
    """Return whether the model of a decision passed the gate and must pass a canary before it is deployed."""
    return bool(decision["passed"] and decision.get("canary"))


def load(folder: str) -> dict[str, Any]:
    """Return the decision in the artifact at `folder`, which a user named. Raises InputError if there is none."""
    content(folder)
    value = read(folder)
    if not isinstance(value, dict) or not {"winner", "passed", "reason", "evaluation", "comparison"} <= value.keys():
        raise InputError(
            f"{storage.join(folder, FILE)} is not a decision of the gate; name the register stage's folder"
        )
    return value


def content(folder: str) -> bytes:
    """Return the bytes of the decision's file in the artifact at `folder`. Raises InputError if there is none."""
    file = storage.join(folder, FILE)
    if not storage.exists(file):
        raise InputError(f"there is no decision at {folder}; name the folder that the register stage wrote")
    return storage.read_bytes(file)


def write(folder: str, decision: dict[str, Any]) -> None:
    """Write the decision to the artifact at `folder`."""
    storage.write_json(storage.join(folder, FILE), decision)


def digest(folder: str) -> str:
    """Return the SHA-256 of the decision's file in the artifact at `folder`."""
    return storage.sha256(storage.join(folder, FILE))


def explain(decision: Mapping[str, Any]) -> str:
    """Return the decision in words for readers who do not know the metrics, followed by the gate's own reason."""
    winner = decision["winner"]
    lines = [f"The best of the trained models is {winner}. It {_verdict(decision)}."]
    measured = decision["evaluation"].get(winner, {})
    facts = [words.format(100 * measured[name]["value"]) for name, words in _IN_WORDS.items() if name in measured]
    if facts:
        lines.append(
            f"On code that it has never seen, it {', '.join(facts[:-1])}{' and ' * (len(facts) > 1)}{facts[-1]}."
        )
    lines += [_against(decision["comparison"])] if decision["comparison"] else []
    lines += [_lost(language, each) for language, each in decision.get("languages", {}).items() if each["worse"]]
    lines += [_speed(decision["latency"])] if decision.get("latency") else []
    lines += [_trial(decision["name"])] if on_trial(decision) else []
    return "\n".join([*lines, f"In figures: {decision['reason']}"])


def _verdict(decision: Mapping[str, Any]) -> str:
    if not decision["passed"]:
        return "did not pass, so it is not deployed"
    return f"passed the gate, so {'some users may try it' if on_trial(decision) else 'it may be deployed'}"


def _trial(name: str) -> str:
    """Return where to look for a model on trial, and what happens next."""
    return (
        f"It does not replace the model in use yet: it is the candidate of the registered model {name} (see infill"
        " canary show). Serve it to some of the users with infill serve --candidate; infill canary decide then makes it"
        " the model in use, or rolls it back."
    )


def _against(comparison: Mapping[str, Any]) -> str:
    """Return how the winner compares with the champion."""
    if comparison["low"] > 0:
        verdict = "it is better"
    elif comparison["high"] < 0:
        verdict = "it is worse"
    else:
        verdict = "the difference may be due to chance"
    return f"Compared with the model in use, on the same {comparison['holes']:,} places, {verdict}."


def _lost(language: str, each: Mapping[str, Any]) -> str:
    """Return that the winner is worse than the champion in a language."""
    comparison = each["comparison"]
    return (
        f"In {language} it is worse than the model in use, by {-100 * comparison['value']:.1f} points of 100 on"
        f" {comparison['holes']:,} places, which is more than chance explains."
    )


def _speed(latency: Mapping[str, Any]) -> str:
    """Return how long an editor waits."""
    return f"Nine of ten completions take at most {latency['p90_ms']:,.0f} ms on {latency['machine']}."
