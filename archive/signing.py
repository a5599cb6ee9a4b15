"""Signatures of archives, each in a file beside its archive, as the OpenSSF's model-signing package makes them.

That package is an extra; loading an archive needs neither it nor a signature.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from archive.reading import open_archive
from archive.tensor_file import read_file
from archive.unfinished import unfinished_file
from schema.errors import AccessError, IntegrityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIX: Final = ".sig"
"""What the name of a signature ends in, after the whole name of the archive."""

_MAX_KEY_BYTES: Final = 64 * 1024
_MAX_SIGNATURE_BYTES: Final = 1024 * 1024
_REFUSALS: Final = {
    "Signature mismatch": "the file is not the one that was signed",
    "Key mismatch": "the signature was made with another key",
}
"""How the package's errors begin, and what they mean."""


def sign(
    path: str | os.PathLike[str],
    private_key: str | os.PathLike[str],
    signature: str | os.PathLike[str] | None = None,
) -> Path:
    """Sign an archive.

    Args:
        path: The archive.
        private_key: PEM file of a private key on the curve P-256, P-384 or P-521, without a password.
        signature: Where to write the signature; None for beside the archive, under its name with ``.sig`` behind it.

    Returns:
        The file of the signature.

    Raises:
        AccessError: A file cannot be read or written.
        FormatError: The file to be signed is no archive, or a malformed one.
        UsageError: The key is of another kind, or the package is not installed.
    """
    package = _package()
    open_archive(path).close()
    config = package.signing.Config()
    _give_key(lambda: config.use_elliptic_key_signer(private_key=private_key), private_key, "private")
    target = Path(signature) if signature is not None else signature_path(path)
    try:
        with unfinished_file(target.parent) as (unfinished, _):
            config.sign(Path(path).resolve(), unfinished)
            unfinished.replace(target)
    except OSError as error:
        raise AccessError(f"cannot write {target}: {error.strerror}", remedy="name another --signature") from error
    return target


def verify_signature(
    path: str | os.PathLike[str],
    public_key: str | os.PathLike[str],
    signature: str | os.PathLike[str] | None = None,
) -> None:
    """Check that an archive is, byte for byte, the one that the owner of a key has signed.

    Args:
        path: The archive.
        public_key: PEM file of the public key.
        signature: The file of the signature; None for where :func:`sign` writes it.

    Raises:
        IntegrityError: It is not, or the signature is not of that key, or no signature.
        AccessError: A file cannot be read.
        FormatError: The file is no archive, or a malformed one.
        UsageError: The key is of another kind, or the package is not installed.
    """
    package = _package()
    open_archive(path).close()
    config = package.verifying.Config()
    _give_key(lambda: config.use_elliptic_key_verifier(public_key=public_key), public_key, "public")
    found = Path(signature) if signature is not None else signature_path(path)
    read_file(found, _MAX_SIGNATURE_BYTES)
    try:
        config.verify(Path(path).resolve(), found)
    except Exception as error:  # whatever the package and what it stands on raise: nothing is proved
        meanings = (meaning for start, meaning in _REFUSALS.items() if str(error).startswith(start))
        message = next(meanings, "not a valid signature")
        raise IntegrityError(
            f"{message} ({found})", remedy="do not use the file; get it and its signature anew"
        ) from error


def signature_path(path: str | os.PathLike[str]) -> Path:
    """Where the signature of an archive is, unless it is put elsewhere."""
    return Path(os.fspath(path) + SUFFIX)


def _package() -> Any:
    try:
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        message = f"signatures need the package model-signing: {error}"
        raise UsageError(message, remedy="pip install 'program-archive[sign]'") from error
    return model_signing


def _give_key(use: Callable[[], object], key: str | os.PathLike[str], kind: str) -> None:
    read_file(Path(key), _MAX_KEY_BYTES)
    try:
        use()
    except Exception as error:  # whatever the cryptography package raises
        message = f"{os.fspath(key)} is no {kind} key on the curve P-256, P-384 or P-521, in PEM and without a password"
        remedy = "make one: `openssl ecparam -name prime256v1 -genkey -noout -out key.pem`, and of it the public one: "
        raise UsageError(message, remedy=f"{remedy}`openssl ec -in key.pem -pubout -out pub.pem`") from error
