"""Signatures: made with one key, they hold for one file, and for nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from archive.cli import main
from archive.signing import sign, signature_path, verify_signature
from archive.writing import bytes_blob, write_archive
from schema.codec import encode
from schema.errors import AccessError, FormatError, IntegrityError, UsageError
from tests.test_archive_file import make_manifest, section_blobs, weight_blobs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what model-signing stands on


def write_key(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: str = "") -> None:
    """Write a key to NAME.pem, and the public one to NAME.pub.pem."""
    lock = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, pkcs8, lock))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub.pem").write_bytes(public)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An archive in a folder with keys."""
    for name in ("mine", "other"):
        write_key(tmp_path, name, ec.generate_private_key(ec.SECP256R1()))
    path = tmp_path / "model.program.safetensors"
    write_archive(path, weight_blobs() + section_blobs(), lambda _: encode(make_manifest()))
    return path


def test_a_signed_archive_is_verified_under_any_name_and_through_a_link(path: Path) -> None:
    before = path.read_bytes()
    signature = sign(path, path.with_name("mine.pem"))
    assert signature == signature_path(path) == path.with_name("model.program.safetensors.sig")
    assert path.read_bytes() == before
    verify_signature(path, path.with_name("mine.pub.pem"))
    moved, link = path.rename(path.with_name("moved")), path.with_name("link")
    link.symlink_to(moved)
    for other in (moved, link):
        verify_signature(other, path.with_name("mine.pub.pem"), signature)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_the_longer_curves_do_as_well(path: Path, curve: ec.EllipticCurve) -> None:
    write_key(path.parent, "long", ec.generate_private_key(curve))
    sign(path, path.with_name("long.pem"), path.with_name("elsewhere.sig"))
    verify_signature(path, path.with_name("long.pub.pem"), path.with_name("elsewhere.sig"))


def test_another_archive_is_not_the_one_that_was_signed(path: Path) -> None:
    sign(path, path.with_name("mine.pem"))
    blobs = [
        bytes_blob(each.name, b"x" * each.nbytes)._replace(code=each.code, shape=each.shape) for each in weight_blobs()
    ]
    write_archive(path, blobs + section_blobs(), lambda _: encode(make_manifest()))
    with pytest.raises(IntegrityError, match="the file is not the one that was signed"):
        verify_signature(path, path.with_name("mine.pub.pem"))


def test_another_key_is_refused(path: Path) -> None:
    signature = sign(path, path.with_name("mine.pem"))
    with pytest.raises(IntegrityError, match="made with another key"):
        verify_signature(path, path.with_name("other.pub.pem"))
    without_hint = json.loads(signature.read_text())
    without_hint["verificationMaterial"]["publicKey"]["hint"] = ""
    signature.write_text(json.dumps(without_hint))
    with pytest.raises(IntegrityError, match="not a valid signature"):
        verify_signature(path, path.with_name("other.pub.pem"))


def test_every_change_of_a_signature_is_refused_or_means_nothing(path: Path) -> None:
    signature = sign(path, path.with_name("mine.pem"))
    bundle = json.loads(signature.read_text())
    payload, signed = bundle["dsseEnvelope"]["payload"], bundle["dsseEnvelope"]["signatures"][0]["sig"]
    for change in (
        {"payload": payload[:-8]},
        {"payloadType": "x"},
        {"signatures": []},
        {"signatures": [{"sig": "AAAA"}]},
    ):
        signature.write_text(json.dumps({**bundle, "dsseEnvelope": {**bundle["dsseEnvelope"], **change}}))
        with pytest.raises(IntegrityError):
            verify_signature(path, path.with_name("mine.pub.pem"))
    for text in ("", "{}", "[" * 100_000, json.dumps(bundle).replace(signed, signed[::-1])):
        signature.write_text(text)
        with pytest.raises(IntegrityError, match=r"\.sig\); do not use the file"):
            verify_signature(path, path.with_name("mine.pub.pem"))


def test_keys_of_other_kinds_are_refused_with_how_to_make_one(path: Path) -> None:
    write_key(path.parent, "rsa", rsa.generate_private_key(65537, 2048))
    write_key(path.parent, "curve", ec.generate_private_key(ec.SECP256K1()))
    write_key(path.parent, "locked", ec.generate_private_key(ec.SECP256R1()), "password")
    for name in ("rsa.pem", "curve.pem", "locked.pem", "mine.pub.pem", path.name):
        with pytest.raises(UsageError, match=r"is no private key on the curve P-256.*openssl ecparam"):
            sign(path, path.with_name(name))
    sign(path, path.with_name("mine.pem"))
    for name in ("rsa.pub.pem", "curve.pub.pem", "mine.pem"):
        with pytest.raises(UsageError, match="is no public key"):
            verify_signature(path, path.with_name(name))


def test_what_is_not_there_or_no_archive_is_told(path: Path) -> None:
    with pytest.raises(AccessError, match=r"model\.program\.safetensors\.sig: No such file"):
        verify_signature(path, path.with_name("mine.pub.pem"))
    with pytest.raises(AccessError, match=r"nokey\.pem"):
        sign(path, path.with_name("nokey.pem"))
    with pytest.raises(AccessError, match="cannot write"):
        sign(path, path.with_name("mine.pem"), path.parent / "missing" / "x.sig")
    with pytest.raises(FormatError, match="not a program archive"):
        sign(path.with_name("mine.pem"), path.with_name("mine.pem"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of a command."""
    monkeypatch.setattr(sys, "argv", ["archive", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_the_command_line_signs_verifies_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    import exporter

    path, mine, other = (tmp_path / name for name in ("x.program.safetensors", "mine.pem", "other.pub.pem"))
    write_key(tmp_path, "mine", ec.generate_private_key(ec.SECP256R1()))
    write_key(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=path, record_outputs=True)
    assert run(monkeypatch, "sign", path, "--private-key", mine) == 0
    assert capsys.readouterr().out == f"signed: {path}.sig\n"
    assert run(monkeypatch, "verify", path, "--public-key", tmp_path / "mine.pub.pem", "--json") == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert checks[0]["name"] == "signature"
    assert all(check["ok"] for check in checks)
    assert run(monkeypatch, "verify", path, "--public-key", other, "--signature", f"{path}.sig") == 1
    assert "error: the signature was made with another key" in capsys.readouterr().err
    assert run(monkeypatch, "verify", path, "--signature", f"{path}.sig") == 2
    assert "give --public-key FILE too" in capsys.readouterr().err


def test_signing_imports_no_torch_and_reading_no_signing(path: Path) -> None:
    code = (
        "import sys, archive.signing as signing; print('model_signing' in sys.modules);"
        f"signing.sign({str(path)!r}, {str(path.with_name('mine.pem'))!r});"
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "set()"]


def test_without_the_extra_one_line_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing.signing", None)
    for act in (sign, verify_signature):
        with pytest.raises(
            UsageError, match=r"need the package model-signing.*; pip install 'program-archive\[sign\]'$"
        ):
            act(path, path.with_name("mine.pem"))
