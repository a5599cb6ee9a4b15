"""The schema is the one that was promised, and its bytes are canonical."""

from __future__ import annotations

import copy
import json
import math

import msgpack
import msgspec
import pytest
import zstandard
from hypothesis import given, strategies as st

from schema import literals
from schema.calls import Branch, Calls, Leaf, Tree
from schema.codec import compress, decode, decompress, encode
from schema.debug import Debug
from schema.errors import FormatError, VersionError
from schema.limits import DEFAULT_LIMITS
from schema.manifest import Manifest, Producer
from schema.names import check_fqn, is_identifier
from schema.version import FORMAT_VERSION, judge_version
from tests.schema_lock import LOCK, describe, owed_bump


def test_the_schema_is_the_locked_one() -> None:
    locked = json.loads(LOCK.read_text())
    owed = owed_bump(locked, json.loads(json.dumps(describe())))
    assert owed == "none", (
        f"the schema has changed: that owes a {owed} bump of FORMAT_VERSION, a line in version.py, FORMAT.md, "
        "and a new lock by `python -m tests.schema_lock`"
    )


def test_the_lock_computes_the_bump() -> None:
    old = json.loads(LOCK.read_text())
    fields = "schema.manifest.Producer"
    added, required, renamed, shrunk = (copy.deepcopy(old) for _ in range(4))
    added["records"][fields]["fields"].append({"name": "host", "type": "str", "required": False})
    required["records"][fields]["fields"].append({"name": "host", "type": "str", "required": True})
    renamed["records"][fields]["fields"][0]["name"] = "title"
    shrunk["lists"]["functions"].remove("Add")
    assert [owed_bump(old, new) for new in (old, added, required, renamed, shrunk)] == [
        "none",
        "minor",
        "major",
        "major",
        "major",
    ]


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars | st.builds(literals.Complex, st.floats(allow_nan=False), st.floats(allow_nan=False)),
    lambda inner: st.builds(literals.Items, st.lists(inner)) | st.builds(literals.Tuple, st.lists(inner)),
    max_leaves=10,
)


@given(values)
def test_literals_round_trip_with_their_types(value: literals.Literal) -> None:
    document = Calls(entries=[], types=[], example=Branch(0, value, [Leaf()]))
    again = decode(encode(document), Calls, ())
    assert again == document
    assert encode(again) == encode(document)


def test_numbers_keep_their_type_and_sign() -> None:
    for value in (1, 1.0, True, -0.0, math.inf, 2**64 - 1):
        tree: Tree = Branch(0, value, [])
        again = decode(encode(Calls(entries=[], example=tree)), Calls, ()).example
        assert isinstance(again, Branch)
        assert type(again.context) is type(value)
        assert math.copysign(1, again.context) == math.copysign(1, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        encode(Debug()) + b"\0",
        encode(Debug())[:-1],
        b"\x82\xa6frames\x90\xa6frames\x90",  # a key twice
        b"\x81\xa6frames\xdc\x00\x00",  # a list of none in the long form
        b"\x81\xa6frames\x91\x01",  # a number for a string
        b"\x81\xa6frames\xc7\x01\x01\x00",  # an extension type
        b"\x81\xa6frames" + b"\x91" * 100_000,  # too deep
        msgpack.packb({"frames": [], "stacks": [], "sources": [], "nodes": [], "more": 1}),
    ],
)
def test_what_is_not_the_canonical_form_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="at debug"):
        decode(data, Debug, ("debug",))


def test_a_reader_of_a_newer_minor_ignores_what_it_does_not_know() -> None:
    data = msgpack.packb({"frames": ["a"], "stacks": [], "sources": [], "nodes": [], "more": 1})
    assert decode(data, Debug, (), canonical=False).frames == ["a"]


def test_plain_msgpack_reads_a_document() -> None:
    producer = Producer(name="program-archive", version="0", torch="2")
    manifest = Manifest(format=(1, 0), producer=producer, methods=[], storages=[], tensors=[])
    read = msgpack.unpackb(encode(manifest))
    assert read["format"] == [1, 0]
    assert read["producer"] == {"name": "program-archive", "version": "0", "torch": "2"}


def test_a_section_is_one_frame_that_says_its_size_and_checks_its_bytes() -> None:
    data = b"some bytes " * 100
    frame = compress(data)
    assert decompress(frame, len(data), ()) == data
    plain = zstandard.ZstdCompressor(write_checksum=False).compress(data)
    unsized = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(data)
    bomb = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(DEFAULT_LIMITS.section_bytes + 1))
    cases = [
        (frame, len(data) - 1),
        (frame, len(data) + 1),
        (frame + b"\0", len(data)),
        (frame + frame, len(data)),
        (frame[:-1], len(data)),
        (frame[:-6] + bytes([frame[-6] ^ 1]) + frame[-5:], len(data)),
        (plain, len(data)),
        (unsized, len(data)),
        (bomb, DEFAULT_LIMITS.section_bytes + 1),
        (b"", 0),
    ]
    for wrong, size in cases:
        with pytest.raises(FormatError, match="at graph"):
            decompress(wrong, size, ("graph",))


def test_versions_are_judged() -> None:
    major, minor = FORMAT_VERSION
    judge_version((major, minor), [])
    judge_version((major, minor + 1), [])
    with pytest.raises(VersionError, match=rf"{major + 1}\.0.*{major}\.{minor}; upgrade"):
        judge_version((major + 1, 0), [])
    with pytest.raises(VersionError, match="export the model again"):
        judge_version((major - 1, 0), [])
    with pytest.raises(VersionError, match="needs teleport"):
        judge_version((major, minor + 1), ["teleport"])


def test_names_that_can_become_code() -> None:
    assert is_identifier("p_layer_0_weight")
    assert not any(is_identifier(name) for name in ("", "a b", "a=1", "class", "ä", "1a", "a\n", "a.b", "None"))
    assert check_fqn("layers.0.weight", ()) == "layers.0.weight"
    for name in ("", ".", "a..b", 'a".b', "a'b", "a\\b", "a\nb"):
        with pytest.raises(FormatError, match="qualified name"):
            check_fqn(name, ())


def test_documents_that_are_read_are_typed_all_the_way() -> None:
    producer = {"name": "", "version": "", "torch": ""}
    data = msgpack.packb({"format": [1, 0], "producer": producer, "methods": [1]})
    with pytest.raises(FormatError, match=r"\$\.methods\[0\]"):
        decode(data, Manifest, ())
    assert msgspec.msgpack.decode(encode(Debug())) == {"frames": [], "stacks": [], "sources": [], "nodes": []}
