"""Signatures of the gate's decision, which the deploy stage can require.

The keys are elliptic-curve keys (P-256) in PEM form, and a signature is the base64 text that `cosign sign-blob` writes:
ECDSA over the SHA-256 of the file. So `cosign verify-blob` and `openssl dgst -verify` check ours, and a person can sign
with either. The signature is stored next to the decision and is not part of the artifact: a decision may be signed
later, and is the same whoever signed it.
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
_PEM: Final = "-----BEGIN"


def sign(folder: str, key: str) -> str:
    """Sign the decision in the artifact at `folder` with the private `key` (PEM or path); return the signature's URI.

    Raises InputError for a decision that is missing, or a key that cannot be used.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    signature = _private(key).sign(decision.content(folder), ec.ECDSA(SHA256()))
    target = storage.join(folder, FILE)
    storage.write_bytes(target, base64.b64encode(signature) + b"\n")
    return target


def sign_if_wanted(folder: str) -> None:
    """Sign the decision at `folder` if SIGNING_KEY is set. Raises the errors of `sign`."""
    if key := os.environ.get(SIGNING_KEY):
        sign(folder, key)


def check(folder: str) -> None:
    """Raise InputError if a signature is required and the decision at `folder` (empty: unknown) does not have it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    key = _required()
    if key is None:
        return
    file = storage.join(folder, FILE)
    if not folder or not storage.exists(file):
        raise InputError(
            f"the decision at {folder or 'an unknown place'} is not signed, so its model is not deployed; sign it with"
            f" `infill gate sign`, or set {SIGNING_KEY} where the register stage runs"
        )
    try:
        signature = base64.b64decode(decode(storage.read_bytes(file)).strip(), validate=True)
        key.verify(signature, decision.content(folder), ec.ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise InputError(
            f"the signature at {file} is not one of this decision by the required key: the decision was changed after"
            " it was signed, or somebody else signed it; its model is not deployed"
        ) from error


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
