"""Signatures of the gate's decision, which the deploy stage can require.

The keys are elliptic-curve keys (P-256) in PEM form, and a signature is the base64 text that `cosign sign-blob` writes:
ECDSA over the SHA-256 of the file. So `cosign verify-blob` and `openssl dgst -verify` check ours, and a person can sign
with either.

The register stage signs when it decides, never what it finds: its signature is part of the artifact. A person may sign
later, in a file of its own. A deployment takes either, from the key that it requires.
"""

import base64
import binascii
import os
from typing import TYPE_CHECKING, Any, Final

from infill import storage
from infill.artifacts import decision
from infill.errors import InputError
from infill.text import decode, read_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

SIGNING_KEY: Final = "INFILL_SIGNING_KEY"
"""Environment variable with the private key, or the path of its file, with which the register stage signs."""
VERIFY_KEY: Final = "INFILL_VERIFY_KEY"
"""Environment variable with the public key, or the path of its file, whose signature the deploy stage requires. With a
signing key alone, it requires that key's signature."""
FILE: Final = f"{decision.FILE}.sig"
"""The register stage's signature."""
APPROVAL_FILE: Final = f"{decision.FILE}.approved.sig"
"""A person's signature, which is not part of the artifact."""
_PEM: Final = "-----BEGIN"


def sign(folder: str, key: str, file: str = APPROVAL_FILE) -> str:
    """Sign the decision in the artifact at `folder` with the private `key` (PEM or path); return the signature's URI.

    The same decision and key give the same signature. Raises InputError for a decision that is missing, or a key that
    cannot be used.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
    signature = _private(key).sign(decision.content(folder), algorithm)
    target = storage.join(folder, file)
    storage.write_bytes(target, base64.b64encode(signature) + b"\n")
    return target


def sign_if_wanted(folder: str) -> None:
    """Sign the decision that was just written to `folder` if SIGNING_KEY is set. Raises the errors of `sign`."""
    if key := os.environ.get(SIGNING_KEY):
        sign(folder, key, FILE)


def is_required() -> bool:
    """Return whether this process deploys only models with a signed decision."""
    return any(os.environ.get(name) for name in (VERIFY_KEY, SIGNING_KEY))


def check(folder: str) -> None:
    """Raise InputError if a signature is required and the decision at `folder` (empty: unknown) does not have it."""
    if (key := _required()) is None:
        return
    files = [storage.join(folder, name) for name in (FILE, APPROVAL_FILE)] if folder else []
    files = [file for file in files if storage.exists(file)]
    if not files:
        raise InputError(
            f"the decision at {folder or 'an unknown place'} is not signed, so its model is not deployed; sign it with"
            f" `infill gate sign`, or set {SIGNING_KEY} where the register stage runs"
        )
    content = decision.content(folder)
    if not any(_is_signature(storage.read_bytes(file), content, key) for file in files):
        raise InputError(
            f"the signature at {' or '.join(files)} is not one of this decision by the required key: the decision was"
            " changed after it was signed, or somebody else signed it; its model is not deployed"
        )


def _is_signature(data: bytes, content: bytes, key: "EllipticCurvePublicKey") -> bool:
    """Return whether `data`, the bytes of a signature's file, is the signature of `content` by `key`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(base64.b64decode(decode(data).strip(), validate=True), content, ec.ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _required() -> "EllipticCurvePublicKey | None":
    if public := os.environ.get(VERIFY_KEY):
        return _public(public)
    private = os.environ.get(SIGNING_KEY)
    return _private(private).public_key() if private else None


def _private(key: str) -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    loaded = _load(key, SIGNING_KEY, lambda pem: load_pem_private_key(pem, password=None))
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise InputError(f"{_name(key, SIGNING_KEY)} must be an elliptic-curve key, such as `openssl ecparam` makes")
    return loaded


def _public(key: str) -> "EllipticCurvePublicKey":
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    loaded = _load(key, VERIFY_KEY, load_pem_public_key)
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise InputError(f"{_name(key, VERIFY_KEY)} must be an elliptic-curve key, such as `openssl ecparam` makes")
    return loaded


def _load(key: str, variable: str, parse: Any) -> Any:
    """Return the key that `parse` reads. Raises InputError without quoting it."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        pem = key if key.lstrip().startswith(_PEM) else read_text(storage.local_path(key).expanduser())
    except OSError as error:
        raise InputError(f"the key {key} of {variable} cannot be read ({error.strerror}); check the path") from error
    if "ENCRYPTED" in pem:
        raise InputError(f"{_name(key, variable)} is encrypted; store it without a password, in a secret of its own")
    try:
        return parse(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{_name(key, variable)} is not a key in PEM form of the right kind") from error


def _name(key: str, variable: str) -> str:
    """Return how errors call the key: by its path, never by its content."""
    return f"the key in {variable}" if key.lstrip().startswith(_PEM) else f"the key {key}"
