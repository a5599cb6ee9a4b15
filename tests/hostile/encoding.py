"""The msgpack documents of sections, and the manifest."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from tests.hostile.cases import MANIFEST_ONLY, Builder, Case, original, parts
from tests.hostile.parts import take_apart

_PLACE = r"\(at forward.calls\)"
_MANIFEST = r"\(at manifest\)"


def _calls(change: Callable[[bytes], bytes]) -> Builder:
    """Change the bytes of a document."""
    return parts(lambda taken: taken.put_content("calls", change(taken.content("calls"))))


def _values(change: Callable[[Any], bytes]) -> Builder:
    """Encode a document anew, after a change of its values."""
    return _calls(lambda data: change(msgpack.unpackb(data)))


def _manifest(change: Callable[[bytes], bytes]) -> Builder:
    """Change the bytes of the manifest."""

    def build(folder: Path) -> Path:
        taken = take_apart(original())
        return taken.write(folder / "bad", change(msgspec.msgpack.encode(taken.manifest)))

    return build


def _named(name: bytes, value: bytes) -> Callable[[bytes], bytes]:
    """The document with one more field."""

    def change(data: bytes) -> bytes:
        assert data[0] & 0xF0 == 0x80, "a small map"
        return bytes([data[0] + 1]) + data[1:] + bytes([0xA0 + len(name)]) + name + value

    return change


def _instead(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change


def _array(count: int, row: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + row * count


def _noise(data: bytes) -> bytes:
    """The document with a field of random bytes, without which zstd would give away what follows."""
    noise = random.Random(0).randbytes(64_000)
    return _named(b"noise", b"\xc5" + struct.pack(">H", len(noise)) + noise)(data)


def _entries(row: bytes, count: int) -> Callable[[bytes], bytes]:
    """A document with nothing but noise and a table of many equal rows."""
    return lambda _: _noise(b"\x81\xa7entries" + _array(count, row))


def _stacks(count: int) -> bytes:
    return _noise(b"\x82\xa6frames\x90\xa6stacks" + _array(count, b"\x90"))


_TREE = b"\x94\xa6branch\x00\xc0\x91"
_DEBUG_BLIND = frozenset({"inspect", "load_module"})
_TEXT = msgspec.msgpack.encode("builtins.tuple")

CASES = [
    Case("nothing", _calls(lambda _: b""), _PLACE, MANIFEST_ONLY),
    Case("a list instead of a map", _values(lambda value: msgpack.packb(list(value.values()))), _PLACE, MANIFEST_ONLY),
    Case("a number instead of a map", _calls(lambda _: b"\x07"), _PLACE, MANIFEST_ONLY),
    Case("maps a hundred thousand deep", _calls(lambda _: b"\x81\xa1a" * 100_000), _PLACE, MANIFEST_ONLY),
    Case("lists a hundred thousand deep", _calls(_named(b"more", b"\x91" * 100_000 + b"\xc0")), _PLACE, MANIFEST_ONLY),
    Case(
        "trees a thousand deep",
        _calls(_instead(b"\x91\xa4leaf", _TREE * 1000 + b"\x91\xa4leaf")),
        r"\(at (forward\.)?calls",
        MANIFEST_ONLY,
    ),
    Case(
        "a list of 2^32 - 1 rows",
        _calls(_instead(b"\xa5types\x92", b"\xa5types\xdd\xff\xff\xff\xff")),
        _PLACE,
        MANIFEST_ONLY,
    ),
    Case("a map of 2^32 - 1 fields", _calls(lambda data: b"\xdf\xff\xff\xff\xff" + data[1:]), _PLACE, MANIFEST_ONLY),
    Case(
        "a text of 2^32 - 1 bytes", _calls(_instead(_TEXT, b"\xdb\xff\xff\xff\xff" + _TEXT[1:])), _PLACE, MANIFEST_ONLY
    ),
    Case(
        "trees a hundred deep",
        _calls(_instead(b"\x91\xa4leaf", _TREE * 100 + b"\x91\xa4leaf")),
        "too deep",
        MANIFEST_ONLY,
    ),
    Case(
        "millions of empty maps",
        _calls(lambda data: _named(b"more", _array(3_000_000, b"\x80"))(_noise(data))),
        rf"maps and records {_PLACE}",
        MANIFEST_ONLY,
    ),
    Case("hundreds of thousands of rows", _calls(_entries(b"\x91\xa0", 450_000)), _PLACE, MANIFEST_ONLY),
    Case("millions of rows", _calls(_entries(b"\x91\xa0", 3_000_000)), rf"maps and records {_PLACE}", MANIFEST_ONLY),
    Case(
        "millions of empty texts",
        _calls(_instead(b"\xa6fields\x90", b"\xa6fields" + _array(10_000_000, b"\xa0"))),
        _PLACE,
        MANIFEST_ONLY,
    ),
    Case(
        "hundreds of thousands of empty stacks",
        parts(lambda taken: taken.put_content("debug", _stacks(450_000))),
        r"\(at (forward\.)?debug",
        _DEBUG_BLIND,
    ),
    Case(
        "millions of empty maps in the manifest",
        _manifest(_named(b"more", _array(3_000_000, b"\x80"))),
        rf"maps and records {_MANIFEST}",
    ),
    Case("millions of empty features", _manifest(_named(b"features", _array(14_000_000, b"\xa0"))), "needs"),
    Case(
        "a manifest over the limit",
        _manifest(_named(b"more", b"\xc6" + struct.pack(">I", 2**24) + bytes(2**24))),
        rf"more than 16777216 {_MANIFEST}",
    ),
    Case("a field that is there twice", _calls(_named(b"types", b"\x90")), rf"repeated keys.*{_PLACE}", MANIFEST_ONLY),
    Case("a field that is not known", _calls(_named(b"more", b"\xc0")), rf"unknown fields.*{_PLACE}", MANIFEST_ONLY),
    Case(
        "a field that is not known in the manifest",
        _manifest(_named(b"more", b"\xc0")),
        rf"unknown fields.*{_MANIFEST}",
    ),
    Case(
        "a missing field",
        _values(lambda value: msgpack.packb({"types": value["types"]})),
        rf"`entries`.*{_PLACE}",
        MANIFEST_ONLY,
    ),
    Case(
        "fields in another order",
        _values(lambda value: msgpack.packb(dict(reversed(value.items())))),
        rf"canonical form.*{_PLACE}",
        MANIFEST_ONLY,
    ),
    Case("a field's name that is bytes", _calls(_instead(b"\xa5types", b"\xc4\x05types")), _PLACE, MANIFEST_ONLY),
    Case("a field's name that is a number", _calls(_instead(b"\xa5types", b"\x07")), _PLACE, MANIFEST_ONLY),
    Case("an extension type", _calls(_named(b"more", b"\xc7\x04\x01abcd")), _PLACE, MANIFEST_ONLY),
    Case("a time", _calls(_named(b"more", b"\xd6\xff\0\0\0\0")), _PLACE, MANIFEST_ONLY),
    Case("a byte that means nothing", _calls(lambda _: b"\xc1"), _PLACE, MANIFEST_ONLY),
    Case(
        "a padded number",
        _calls(_instead(b"\x94\xa6branch\x00", b"\x94\xa6branch\xcc\x00")),
        rf"padding.*{_PLACE}",
        MANIFEST_ONLY,
    ),
    Case(
        "a text with a longer length than it needs",
        _calls(_instead(_TEXT, b"\xd9" + bytes([len(_TEXT) - 1]) + _TEXT[1:])),
        rf"padding.*{_PLACE}",
        MANIFEST_ONLY,
    ),
    Case(
        "true instead of a number",
        _calls(_instead(b"\x94\xa6branch\x00", b"\x94\xa6branch\xc3")),
        _PLACE,
        MANIFEST_ONLY,
    ),
    Case(
        "a fraction instead of a number",
        _calls(_instead(b"\x94\xa6branch\x00", b"\x94\xa6branch\xcb" + struct.pack(">d", 0.0))),
        _PLACE,
        MANIFEST_ONLY,
    ),
    Case(
        "a number over 2^63",
        _calls(_instead(b"\x94\xa6branch\x00", b"\x94\xa6branch\xcf" + b"\xff" * 8)),
        r"\(at (forward\.)?calls",
        MANIFEST_ONLY,
    ),
    Case("a text that is not UTF-8", _calls(_instead(_TEXT, _TEXT[:-1] + b"\xff")), _PLACE, MANIFEST_ONLY),
    Case("half of a surrogate", _calls(_instead(_TEXT, _TEXT[:-3] + b"\xed\xa0\x80")), _PLACE, MANIFEST_ONLY),
    Case("bytes behind the document", _calls(lambda data: data + b"\xc0"), _PLACE, MANIFEST_ONLY),
    Case("a second document", _calls(lambda data: data * 2), _PLACE, MANIFEST_ONLY),
    Case("a document that is cut", _calls(lambda data: data[:-1]), _PLACE, MANIFEST_ONLY),
    Case("a tag that is not known", _calls(_instead(b"\x91\xa4leaf", b"\x91\xa4eval")), _PLACE, MANIFEST_ONLY),
    Case("a pickle as manifest", _manifest(lambda _: b"\x80\x04cos\nsystem\n."), _MANIFEST),
]
