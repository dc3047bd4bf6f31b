"""Signatures of the gate's decision: made by the register stage or a person, required by the deploy stage."""

import base64
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization import PrivateFormat as Private
from cryptography.hazmat.primitives.serialization import PublicFormat as Public

from infill import cli, storage
from infill.artifacts import decision as decisions
from infill.errors import InputError
from infill.release import deploy, registry, signature
from tests.builders import run_stage
from tests.unit.release.test_deploy import DEPLOY
from tests.unit.release.test_register import Run


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, Private.PKCS8, NoEncryption()).decode()


def public_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo).decode()


OURS: Final = ec.generate_private_key(ec.SECP256R1())
THEIRS: Final = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def decision(tmp_path: Path) -> str:
    storage.write_json(str(tmp_path / "a decision" / "decision.json"), {"winner": "sft"})
    return str(tmp_path / "a decision")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (signature.SIGNING_KEY, signature.VERIFY_KEY):
        monkeypatch.delenv(name, raising=False)


def test_without_a_key_nothing_is_signed_or_required(decision: str) -> None:
    signature.sign_if_wanted(decision)
    assert not storage.exists(f"{decision}/decision.json.sig")
    signature.check(decision)


def test_only_the_required_key_over_this_decision_counts(decision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(signature.VERIFY_KEY, public_pem(OURS))
    with pytest.raises(InputError, match="is not signed"):
        signature.check(decision)
    with pytest.raises(InputError, match="an unknown place is not signed"):
        signature.check("")
    signature.sign(decision, pem(THEIRS))
    with pytest.raises(InputError, match="somebody else signed it"):
        signature.check(decision)
    signature.sign(decision, pem(OURS))
    signature.check(decision)
    storage.write_json(f"{decision}/decision.json", {"winner": "dpo"})
    with pytest.raises(InputError, match="was changed after it was signed"):
        signature.check(decision)
    for damaged in (b"", b"\xff\xfe", b"not base64!", b"MEUCIQ=="):
        storage.write_bytes(f"{decision}/decision.json.approved.sig", damaged)
        with pytest.raises(InputError, match="is not one of this decision"):
            signature.check(decision)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_openssl_checks_our_signature_and_we_check_its(
    decision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public, raw = tmp_path / "gate.key", tmp_path / "gate.pub", tmp_path / "raw"
    make = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    file = f"{decision}/decision.json"
    assert cli.main(["gate", "sign", decision, "--key", str(private)]) == 0
    raw.write_bytes(base64.b64decode(storage.read_bytes(f"{file}.approved.sig")))
    verify = ["openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(raw), file]
    assert b"Verified OK" in subprocess.run(verify, check=True, capture_output=True).stdout
    sign = ["openssl", "dgst", "-sha256", "-sign", str(private), "-out", str(raw), file]
    subprocess.run(sign, check=True, capture_output=True)
    storage.write_bytes(f"{file}.approved.sig", base64.b64encode(raw.read_bytes()))
    monkeypatch.setenv(signature.VERIFY_KEY, str(public))
    signature.check(decision)


UNUSABLE: Final[dict[str, tuple[Callable[[], str], str]]] = {
    "another kind of key": (lambda: pem(rsa.generate_private_key(65_537, 2_048)), "must be an elliptic-curve key"),
    "a public key": (lambda: public_pem(OURS), "is not a key in PEM form of the right kind"),
    "half a key": (lambda: pem(OURS)[:100], "is not a key in PEM form of the right kind"),
    "with a password": (
        lambda: OURS.private_bytes(Encoding.PEM, Private.PKCS8, BestAvailableEncryption(b"x")).decode(),
        "is encrypted",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
@pytest.mark.parametrize("form", ["text", "file"])
def test_a_key_that_cannot_be_used_is_reported_without_its_content(
    decision: str, tmp_path: Path, case: str, form: str
) -> None:
    make, said = UNUSABLE[case]
    key = text = make()
    if form == "file":
        (tmp_path / "gate.key").write_text(text)
        key = str(tmp_path / "gate.key")
    with pytest.raises(InputError, match=said) as caught:
        signature.sign(decision, key)
    assert text.split("\n")[1] not in str(caught.value)


def test_a_missing_key_file_is_reported(decision: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        signature.sign(decision, str(tmp_path / "none"))


def test_a_signed_run_is_deployed_and_rolled_back_and_an_unsigned_one_is_not(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned, second = Run(mlflow_store, "one", (0.1, 0.3, 0.2)), Run(mlflow_store, "two", (0.1, 0.3, 0.9))
    unsigned.register()
    monkeypatch.setenv(signature.SIGNING_KEY, pem(OURS))
    second.register()
    monkeypatch.delenv(signature.SIGNING_KEY)
    monkeypatch.setenv(signature.VERIFY_KEY, public_pem(OURS))
    run_stage("deploy", DEPLOY, second.output, output=str(mlflow_store / "signed"))
    with pytest.raises(InputError, match="is not signed, so its model is not deployed"):
        run_stage("deploy", DEPLOY, unsigned.output, output=str(mlflow_store / "unsigned"))
    with pytest.raises(InputError, match="is not signed"):
        deploy.rollback(DEPLOY, "infill", output=str(mlflow_store / "rollback"))
    signature.sign(unsigned.output, pem(OURS))
    deploy.rollback(DEPLOY, "infill", output=str(mlflow_store / "rollback"))


def test_a_changed_decision_is_not_signed_when_its_run_is_repeated(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signature.SIGNING_KEY, pem(OURS))
    run = Run(mlflow_store, "one", (0.1, 0.3, 0.2))
    before = run.register()
    signed = storage.read_bytes(f"{run.output}/decision.json.sig")
    storage.write_json(f"{run.output}/decision.json", {**before, "reason": "x" * len(before["reason"])})
    run.register()
    assert storage.read_bytes(f"{run.output}/decision.json.sig") == signed
    with pytest.raises(InputError, match="was changed after it was signed"):
        run_stage("deploy", DEPLOY, run.output, output=str(mlflow_store / "deployed"))


def test_a_rollback_refuses_the_signed_decision_about_another_model(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signature.SIGNING_KEY, pem(OURS))
    first, second = Run(mlflow_store, "one", (0.1, 0.3, 0.2)), Run(mlflow_store, "two", (0.1, 0.3, 0.9))
    for run in (first, second):
        run.register()
    before = registry.previous("infill")
    assert before is not None
    registry.set_tags(before, {registry.DECISION_URI: second.output})
    with pytest.raises(InputError, match="is about another model"):
        deploy.rollback(DEPLOY, "infill", output=str(mlflow_store / "rollback"))
    assert registry.previous("infill") == registry.version("infill", before.version)


def test_a_decision_is_explained_in_words(mlflow_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Run(mlflow_store, "old", (0.1, 0.2, 0.3)).register()
    run = Run(mlflow_store, "one", (0.1, 0.2, 0.1))
    decision = run.register()
    assert cli.main(["gate", "explain", run.output]) == 0
    output = capsys.readouterr().out
    assert "The best of the trained models is sft. It did not pass, so it is not deployed." in output
    assert "Compared with the model in use, on the same 20 places, it is worse." in output
    assert decision["reason"] in output
    assert cli.main(["gate", "explain", str(mlflow_store)]) == 2
    assert "there is no decision at" in capsys.readouterr().err


def test_lost_languages_and_the_time_of_a_completion_are_explained() -> None:
    comparison = {"value": -0.123, "low": -0.2, "high": -0.05, "holes": 1_045}
    decision = {
        "winner": "sft",
        "passed": False,
        "reason": "In go, kk falls.",
        "evaluation": {},
        "comparison": None,
        "languages": {
            "go": {"comparison": comparison, "p": 0.001, "worse": True},
            "c": {"comparison": comparison, "p": 0.3, "worse": False},
        },
        "latency": {"p90_ms": 1_480.4, "machine": "Xeon, 2 threads"},
    }
    assert decisions.explain(decision).split("\n")[1:3] == [
        "In go it is worse than the model in use, by 12.3 points of 100 on 1,045 places, which is more than chance"
        " explains.",
        "Nine of ten completions take at most 1,480 ms on Xeon, 2 threads.",
    ]
