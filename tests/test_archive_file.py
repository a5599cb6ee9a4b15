"""The file: what is written is read, what was not written is refused, and a failed write leaves what was there."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from safetensors import TensorSpec, safe_open, serialize_file

from archive import open_archive
from archive.tensor_file import TensorFile
from archive.unfinished import unfinished_file
from archive.writing import Blob, bytes_blob, digest, write_archive
from schema.calls import Calls
from schema.codec import compress, encode
from schema.constraints import Constraints, Integer
from schema.dtypes import CARRIERS, CODE_BYTES
from schema.errors import (
    AccessError,
    ArchiveError,
    FormatError,
    IntegrityError,
    UnsupportedError,
    UsageError,
    VersionError,
)
from schema.graph import ProgramGraph
from schema.limits import DEFAULT_LIMITS
from schema.manifest import Manifest, Method, NamedTensor, Producer, Section, Storage, Tensor
from schema.names import MANIFEST, MANIFEST_DIGEST, section_name
from schema.signature import Signature
from schema.version import FORMAT_VERSION

OURS = ".".join(map(str, FORMAT_VERSION))
NEWER = (FORMAT_VERSION[0], FORMAT_VERSION[1] + 1)

replace = msgspec.structs.replace

DOCUMENTS = {
    "graph": ProgramGraph(dialect="TRAINING", graphs=[], targets=[], arguments=[], keywords=[], values=[]),
    "signature": Signature(inputs=[], outputs=[]),
    "constraints": Constraints(expressions=[Integer(7)]),
    "calls": Calls(entries=[]),
}
WEIGHTS = {"layer.weight": bytes(range(24)), "layer.bias": bytes(range(100, 112)), "empty": b""}


def weight_blobs() -> list[Blob]:
    return [
        bytes_blob(name, data)._replace(code="F32", shape=(len(data) // 4,)) for name, data in sorted(WEIGHTS.items())
    ]


def section_blobs() -> list[Blob]:
    return [bytes_blob(section_name("forward", name), compress(encode(each))) for name, each in DOCUMENTS.items()]


def make_manifest() -> Manifest:
    weights, sections = weight_blobs(), section_blobs()
    decoded = [len(encode(document)) for document in DOCUMENTS.values()]
    method = Method(
        name="forward",
        sections=[
            Section(name=name, nbytes=blob.nbytes, decoded_nbytes=size, sha256=hashlib.sha256(blob.owner).digest())
            for name, blob, size in zip(DOCUMENTS, sections, decoded, strict=True)
        ],
        inputs=[],
        outputs=[],
        operators=[],
        nodes=0,
        state=[NamedTensor(key=blob.name, tensor=index) for index, blob in enumerate(weights)],
    )
    return Manifest(
        format=FORMAT_VERSION,
        producer=Producer(name="a test", version="0", torch="2.13.0"),
        methods=[method],
        storages=[Storage(name=blob.name, nbytes=blob.nbytes, blake3=digest(blob)) for blob in weights],
        tensors=[
            Tensor(name=blob.name, dtype="float32", shape=list(blob.shape), storage=index)
            for index, blob in enumerate(weights)
        ],
    )


def write(path: Path, manifest: bytes | None = None) -> Path:
    write_archive(path, weight_blobs() + section_blobs(), lambda _: manifest or encode(make_manifest()))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "model.program.safetensors")


def read_everything(path: Path) -> None:
    """What ``archive verify`` does to the bytes."""
    with open_archive(path) as file:
        for storage in file.manifest.storages:
            if file.digest(storage.name) != storage.blake3:
                raise IntegrityError("a weight differs", loc=(storage.name,))
        for name, document in DOCUMENTS.items():
            file.section("forward", name, type(document))


def header_and_data(path: Path) -> tuple[bytes, bytes]:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return data[8:start].rstrip(b" "), data[start:]


class TestRoundTrip:
    def test_weights_manifest_and_sections_come_back(self, path: Path) -> None:
        with open_archive(path) as file:
            assert {name: file.raw(name) for name in WEIGHTS} == WEIGHTS
            assert file.manifest == make_manifest()
            assert file.size == path.stat().st_size
            for name, document in DOCUMENTS.items():
                assert file.section("forward", name, type(document)) == document

    def test_entries_say_where_the_bytes_are(self, path: Path) -> None:
        with open_archive(path) as file:
            entry = file.entries["layer.weight"]
        assert entry.code == "F32"
        assert entry.shape == (6,)
        assert path.read_bytes()[entry.start : entry.stop] == WEIGHTS["layer.weight"]

    def test_it_is_a_safetensors_file_for_everybody_else(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as file:
            assert file.metadata() == {"format": "pt"}
            assert {name: file.get_tensor(name).tobytes() for name in WEIGHTS} == WEIGHTS

    def test_it_is_what_the_safetensors_library_writes_but_for_the_fill(self, tmp_path: Path) -> None:
        blobs = [
            bytes_blob(f'{code} "\\\n\x1f\x7f é 😀', bytes(size))._replace(code=code, shape=(1, 1))
            for code, size in CODE_BYTES.items()
        ]
        write_archive(tmp_path / "ours", blobs, lambda _: b"manifest")
        blobs += [bytes_blob(MANIFEST, b"manifest"), bytes_blob(MANIFEST_DIGEST, hashlib.sha256(b"manifest").digest())]
        dtypes = {carrier.code: dtype for dtype, carrier in reversed(CARRIERS.items())}
        specs = {
            blob.name: TensorSpec(
                dtype=dtypes[blob.code], shape=blob.shape, data_ptr=blob.address, data_len=blob.nbytes
            )
            for blob in blobs
        }
        serialize_file(specs, tmp_path / "theirs", {"format": "pt"})
        assert header_and_data(tmp_path / "ours") == header_and_data(tmp_path / "theirs")

    def test_tensors_begin_on_cache_lines_where_sizes_allow(self, tmp_path: Path) -> None:
        sizes = {"a": 8, "b": 640, "c": 64, "d": 100, "e": 128}
        write_archive(tmp_path / "file", [bytes_blob(name, bytes(size)) for name, size in sizes.items()], lambda _: b"")
        with TensorFile(tmp_path / "file") as file:
            entries = file.entries
        assert {name for name in sizes if entries[name].start % 64 == 0} >= {"b", "c", "e"}

    def test_same_content_gives_same_bytes_in_any_order(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.safetensors"
        size = write_archive(other, (weight_blobs() + section_blobs())[::-1], lambda _: encode(make_manifest()))
        assert other.read_bytes() == path.read_bytes()
        assert size == path.stat().st_size

    @pytest.mark.parametrize("threads", [0, 1, 4])
    def test_the_manifest_is_made_from_the_digests_of_everything_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
    ) -> None:
        monkeypatch.setattr("archive.writing._HASH_THREADS", max(1, threads))
        monkeypatch.setattr("archive.writing._SMALL_BYTES", 0 if threads else 2**30)
        contents = {"empty": b"", "large": bytes(range(256)) * 1000, **{f"{n}": b"abc" * n for n in range(100)}}
        blobs = [bytes_blob(name, content) for name, content in contents.items()]
        write_archive(tmp_path / "x", blobs, msgspec.msgpack.encode)
        with safe_open(tmp_path / "x", framework="numpy") as file:
            digests = msgspec.msgpack.decode(file.get_tensor(MANIFEST).tobytes())
        assert digests == {name: blake3(content).digest() for name, content in contents.items()}


class TestReading:
    def test_the_mapping_is_private_and_outlives_the_file(self, path: Path) -> None:
        before = path.read_bytes()
        with open_archive(path) as file:
            mapping, entry = file.mapping, file.entries["layer.weight"]
            assert file.mapping is mapping
        mapping[entry.start] = 255
        assert mapping[entry.start : entry.stop] == b"\xff" + WEIGHTS["layer.weight"][1:]
        assert path.read_bytes() == before

    def test_threads_read_the_same(self, path: Path) -> None:
        with open_archive(path) as file, ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda _: (file.raw("layer.weight"), len(file.mapping)), range(200)))
        assert set(read) == {(WEIGHTS["layer.weight"], path.stat().st_size)}

    def test_unknown_names_are_usage_errors_that_say_what_there_is(self, path: Path) -> None:
        with open_archive(path) as file:
            with pytest.raises(UsageError, match="no method 'decode'; it has: forward"):
                file.method("decode")
            with pytest.raises(UsageError, match="no section 'debug'; it has: graph, signature"):
                file.section("forward", "debug", Calls)
            with pytest.raises(UsageError, match="stores no tensor 'x'"):
                file.raw("x")

    def test_a_closed_file_can_be_closed_again_but_not_mapped(self, path: Path) -> None:
        file = open_archive(path)
        file.close()
        file.close()
        with pytest.raises(UsageError, match="is closed"):
            _ = file.mapping

    def test_a_section_of_another_type_is_refused(self, path: Path) -> None:
        with open_archive(path) as file, pytest.raises(FormatError, match="not a valid Calls document"):
            file.section("forward", "graph", Calls)

    def test_a_section_that_was_changed_is_refused(self, path: Path) -> None:
        with open_archive(path) as file:
            start = file.entries[section_name("forward", "graph")].start
        data = bytearray(path.read_bytes())
        data[start + 8] ^= 1
        path.write_bytes(data)
        with open_archive(path) as file, pytest.raises(IntegrityError, match=r"differ.*\(at forward.graph\)"):
            file.section("forward", "graph", ProgramGraph)

    def test_a_file_that_shrinks_while_it_is_read_is_refused(self, path: Path) -> None:
        with open_archive(path) as file:
            os.truncate(path, 100)
            with pytest.raises(AccessError, match="has become shorter"):
                file.raw("layer.weight")

    def test_neither_torch_nor_numpy_is_imported(self, path: Path) -> None:
        code = (
            f"import sys, archive; archive.inspect({str(path)!r});"
            "print({'torch', 'numpy', 'safetensors', 'rich'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"


class TestDamage:
    def test_every_truncation_is_refused(self, path: Path) -> None:
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(FormatError):
                open_archive(path)

    def test_every_changed_byte_is_found(self, path: Path) -> None:
        data = path.read_bytes()
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(changed)
            with pytest.raises(ArchiveError):
                read_everything(path)

    def test_a_truncated_file_says_how_much_is_missing(self, path: Path) -> None:
        os.truncate(path, path.stat().st_size - 10)
        with pytest.raises(FormatError, match=r"truncated: 10 bytes are missing.*; copy or download it again"):
            open_archive(path)

    def test_what_follows_the_last_tensor_is_refused(self, path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"PK")
        with pytest.raises(FormatError, match="2 bytes follow the last tensor"):
            open_archive(path)


class TestStrangers:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "the file is empty"),
            (b"abc", "only 3 bytes"),
            (b"PK\x03\x04" + b"\0" * 40, "a zip file, as torch.save and torch.export.save write"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9", "a pickle file"),
            (b"\x80\x04\x95" + b"\0" * 20, "a pickle file"),
            (b"GGUF\x03\0\0\0\0\0\0\0", "a GGUF file"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer.*git lfs pull"),
            (b"# a text file that is long enough", "no safetensors header"),
            (b"\xff" * 8 + b"{}", "declares a header of 18446744073709551615 bytes"),
            (b"\x40" + b"\0" * 7 + b"{}", "truncated: at least 62 bytes are missing"),
        ],
    )
    def test_files_that_are_no_archives_are_named(self, tmp_path: Path, data: bytes, message: str) -> None:
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(FormatError, match=message):
            open_archive(tmp_path / "x")

    def test_a_plain_safetensors_file_is_told_from_an_archive(self, tmp_path: Path) -> None:
        path = write_header(tmp_path, {"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"\0")
        with pytest.raises(FormatError, match=r"a safetensors file, not a program archive; .*archive export"):
            open_archive(path)

    def test_what_is_not_there_or_no_file_is_an_access_error(self, tmp_path: Path) -> None:
        with pytest.raises(AccessError, match="No such file or directory; check the path"):
            open_archive(tmp_path / "missing")
        with pytest.raises(AccessError, match="it is a folder"):
            open_archive(tmp_path)
        with pytest.raises(AccessError, match="not a path"):
            open_archive("a\0b")

    def test_a_pipe_is_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(AccessError, match="a device or pipe"):
            open_archive(tmp_path / "pipe")


def write_header(folder: Path, fields: object, data: bytes = b"") -> Path:
    header = fields if isinstance(fields, bytes) else json.dumps(fields, separators=(",", ":")).encode()
    path = folder / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


META = {"__metadata__": {"format": "pt"}}


def row(start: int, stop: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [stop - start] if shape is None else shape, "data_offsets": [start, stop]}


class TestHeader:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({MANIFEST: row(0, 8)}, "does not begin with the __metadata__"),
            ({**META, MANIFEST: 1}, "not a valid safetensors header"),
            ({**META, MANIFEST: {**row(0, 8), "more": 1}}, "not a valid safetensors header"),
            ({**META, MANIFEST: row(0, 8, shape=[-8])}, "not a valid safetensors header"),
            ({**META, MANIFEST: row(0, 8, "F4", [16])}, "no tensors of dtype 'F4'"),
            ({**META, MANIFEST: row(0, 8, shape=[2**40, 2**40])}, "8 bytes do not hold U8"),
            ({**META, MANIFEST: row(8, 0, shape=[8])}, "-8 bytes do not hold"),
            ({**META, MANIFEST: row(0, 4), "a": row(2, 8)}, r"overlaps another tensor \(at header.a\)"),
            ({**META, MANIFEST: row(0, 4), "a": row(5, 8)}, r"unused \(at header.a\)"),
            ({**META, MANIFEST: row(1, 8)}, "leaves bytes before it unused"),
            ({**META, MANIFEST: row(0, 2**60)}, "truncated"),
            ({**META, MANIFEST: row(0, 8), "": row(8, 8)}, "without a name"),
        ],
    )
    def test_headers_that_break_the_rules_are_refused(self, tmp_path: Path, fields: object, message: str) -> None:
        with pytest.raises(FormatError, match=message):
            open_archive(write_header(tmp_path, fields, b"\0" * 8))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ("", "not a valid safetensors header"),
            ('"a":ROW,', "not a valid safetensors header"),
            ('"a":ROW,"a":ROW', "a key is repeated"),
            ('"__metadata__":ROW', "a key is repeated"),
            ('"a":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}', "a key is repeated"),
            ('"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"more":1}', "not a valid safetensors header"),
            ('"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"\\ud800":1}', "not a valid safetensors header"),
            ('"a":{"dtype":"U8","shape":[8.0],"data_offsets":[0,9]}', "not a valid safetensors header|do not hold"),
            ('"a":{"dtype":"F4","shape":[0,9223372036854775808],"data_offsets":[0,8]}', "Expected `int` <= "),
            ('"\\ud800":ROW', "not a valid safetensors header"),
            ('"":ROW', "without a name"),
        ],
    )
    def test_weights_in_the_form_that_safetensors_writes_are_held_to_the_same_rules(
        self, tmp_path: Path, fields: str, message: str
    ) -> None:
        row = '{"dtype":"U8","shape":[8],"data_offsets":[0,8]}'
        header = '{"__metadata__":{"format":"pt"},' + fields.replace("ROW", row) + "}"
        with pytest.raises(FormatError, match=message):
            TensorFile(write_header(tmp_path, header.encode(), b"\0" * 8))

    def test_the_header_of_an_archive_has_one_form_and_that_of_weights_any(self, path: Path, tmp_path: Path) -> None:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        fields = json.loads(data[8 : 8 + length])
        shuffled = dict(sorted(fields.items(), reverse=True))
        other = write_header(tmp_path, json.dumps(shuffled, indent=1).encode(), data[8 + length :])
        with pytest.raises(FormatError, match="does not begin with the __metadata__"):
            open_archive(other)
        with TensorFile(path) as file, TensorFile(other) as again:
            assert [(name, again.raw(name)) for name in again.entries] == [(n, file.raw(n)) for n in file.entries]

    def test_a_manifest_needs_its_digest(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match=f"{MANIFEST_DIGEST} is missing"):
            open_archive(write_header(tmp_path, {**META, MANIFEST: row(0, 8)}, b"\0" * 8))


class TestVersions:
    def test_a_newer_major_is_refused_by_both_versions_whatever_its_shape(self, tmp_path: Path) -> None:
        manifest = msgspec.msgpack.encode({"format": (FORMAT_VERSION[0] + 1, 3), "methods": "all different"})
        with pytest.raises(
            VersionError, match=rf"format version {FORMAT_VERSION[0] + 1}.3, this reader knows {OURS}; upgrade"
        ):
            open_archive(write(tmp_path / "x", manifest))

    def test_a_newer_minor_is_read_past_fields_that_are_unknown(self, tmp_path: Path) -> None:
        plain = msgspec.to_builtins(make_manifest(), builtin_types=(bytes,))
        manifest = msgspec.msgpack.encode({**plain, "format": NEWER, "news": [1, 2]})
        with open_archive(write(tmp_path / "x", manifest)) as file:
            assert file.manifest.format == NEWER

    def test_unknown_fields_in_our_own_version_are_refused(self, tmp_path: Path) -> None:
        plain = msgspec.to_builtins(make_manifest(), builtin_types=(bytes,))
        with pytest.raises(FormatError, match="not in canonical form"):
            open_archive(write(tmp_path / "x", msgspec.msgpack.encode({**plain, "news": 1})))

    def test_a_feature_that_must_be_understood_is_refused_by_name(self, tmp_path: Path) -> None:
        manifest = encode(replace(make_manifest(), format=NEWER, features=["time travel"]))
        with pytest.raises(VersionError, match="needs time travel"):
            open_archive(write(tmp_path / "x", manifest))


def with_tensor(**changes: object) -> Manifest:
    manifest = make_manifest()
    return replace(manifest, tensors=[*manifest.tensors[:2], replace(manifest.tensors[2], **changes)])


def with_storage(**changes: object) -> Manifest:
    manifest = make_manifest()
    return replace(manifest, storages=[*manifest.storages[:2], replace(manifest.storages[2], **changes)])


def with_method(**changes: object) -> Manifest:
    manifest = make_manifest()
    return replace(manifest, methods=[replace(manifest.methods[0], **changes)])


def with_section(**changes: object) -> Manifest:
    first, *others = make_manifest().methods[0].sections
    return with_method(sections=[replace(first, **changes), *others])


class TestStructure:
    @pytest.mark.parametrize(
        ("manifest", "message"),
        [
            (with_storage(name="elsewhere"), "described, but not in the file"),
            (with_storage(nbytes=20), "20 bytes described, 24 in the file"),
            (with_storage(blake3=b"short"), "a digest of 5 bytes"),
            (with_storage(name="empty"), "'empty' is there twice"),
            (replace(make_manifest(), storages=make_manifest().storages[:2]), "1 stored tensors are not in the"),
            (with_tensor(dtype="quint8"), "unknown element type 'quint8'"),
            (with_tensor(storage=3), "storage 3 of 3"),
            (with_tensor(storage=-1), "storage -1 of 3"),
            (with_tensor(shape=[7]), "needs 28 bytes of a storage of 24 bytes"),
            (with_tensor(offset=1), "needs 28 bytes"),
            (with_tensor(shape=[3], strides=[3]), "needs 28 bytes"),
            (with_tensor(shape=[2], strides=[1, 1]), "2 strides for 1 dimensions"),
            (with_tensor(shape=[2], strides=[-1]), "out of range"),
            (with_tensor(offset=-1), "out of range"),
            (with_tensor(shape=[2**40, 2**40], strides=[0, 0]), "out of range"),
            (with_tensor(dtype="complex128"), "needs 96 bytes"),
            (with_tensor(name="empty"), "'empty' is there twice"),
            (replace(make_manifest(), methods=[]), "no methods"),
            (with_method(name="import"), "is not an identifier"),
            (with_method(state=[NamedTensor(key="x", tensor=3)]), r"tensor 3 of 3 \(at .*forward.state.x\)"),
            (with_method(constants=[NamedTensor(key="x", tensor=-1)]), "tensor -1 of 3"),
            (with_method(state=[NamedTensor(key="x", tensor=0)] * 2), "'x' is there twice"),
            (with_section(name="graphs"), "unknown section 'graphs'"),
            (with_section(nbytes=1), "1 bytes described"),
            (with_section(decoded_nbytes=-1), "decodes to -1 bytes"),
            (with_method(sections=make_manifest().methods[0].sections * 2), "is there twice"),
        ],
    )
    def test_a_manifest_that_is_not_of_this_file_is_refused(
        self, tmp_path: Path, manifest: Manifest, message: str
    ) -> None:
        with pytest.raises(FormatError, match=message):
            open_archive(write(tmp_path / "x", encode(manifest)))

    def test_views_inside_their_storage_are_accepted(self, tmp_path: Path) -> None:
        for changes in (
            {"shape": [2], "strides": [5]},
            {"shape": [1000, 6], "strides": [0, 1]},
            {"shape": [0, 2**40]},
            {"dtype": "uint8", "shape": [24]},
            {"shape": [], "offset": 5},
        ):
            manifest = make_manifest()
            view = replace(manifest.tensors[2], name="view", **changes)
            changed = replace(manifest, tensors=[*manifest.tensors, view])
            with open_archive(write(tmp_path / "x", encode(changed))):
                pass

    def test_a_required_section_is_missed(self, tmp_path: Path) -> None:
        manifest = with_method(sections=make_manifest().methods[0].sections[1:])
        blobs = weight_blobs() + section_blobs()[1:]
        write_archive(tmp_path / "x", blobs, lambda _: encode(manifest))
        with pytest.raises(FormatError, match="section 'graph' is missing"):
            open_archive(tmp_path / "x")


class TestWriting:
    def test_the_mode_is_that_of_any_new_file(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "plain").touch()
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)

    def test_an_older_file_is_replaced_and_a_reader_of_it_not_disturbed(self, path: Path) -> None:
        with open_archive(path) as old:
            write(path, encode(replace(make_manifest(), format=NEWER)))
            assert old.raw("layer.weight") == WEIGHTS["layer.weight"]
        with open_archive(path) as new:
            assert new.manifest.format == NEWER

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    @pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "archive.writing._write"])
    def test_a_failed_write_leaves_what_was_there(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
    ) -> None:
        before = path.read_bytes()

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(step, fail)
        with pytest.raises((AccessError, KeyboardInterrupt)) as caught:
            write(path, encode(with_method(nodes=9)))
        assert isinstance(error, KeyboardInterrupt) or "No space left on device" in str(caught.value)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]

    @pytest.mark.parametrize("limit", ["manifest_bytes", "containers", "header_bytes"])
    def test_what_readers_would_refuse_is_not_written(self, tmp_path: Path, limit: str) -> None:
        limits = msgspec.structs.replace(DEFAULT_LIMITS, **{limit: 8})
        blobs, manifest = weight_blobs() + section_blobs(), encode(make_manifest())
        with pytest.raises(UnsupportedError, match="more than the 8 that readers take"):
            write_archive(tmp_path / "x", blobs, lambda _: manifest, limits=limits)
        assert not list(tmp_path.iterdir())

    def test_what_a_dead_writer_left_is_removed_and_a_running_writers_file_is_not(self, tmp_path: Path) -> None:
        (tmp_path / ".program-archive.dead").touch()
        with unfinished_file(tmp_path) as (running, _):
            write(tmp_path / "x")
            assert sorted(tmp_path.iterdir()) == sorted([running, tmp_path / "x"])
            running.rename(tmp_path / "y")

    def test_places_where_nothing_can_be_written_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(AccessError, match="No such file or directory; create the folder first"):
            write(tmp_path / "missing" / "x")
        with pytest.raises(AccessError, match="it is a folder"):
            write(tmp_path)
        with pytest.raises(AccessError, match="is not a path"):
            write(tmp_path / "a\0b")
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to("loop")
        for special in ("pipe", "loop"):
            with pytest.raises(AccessError, match="not a regular file"):
                write(tmp_path / special)
        assert sorted(os.listdir(tmp_path)) == ["loop", "pipe"]

    def test_a_symbolic_link_stays_one(self, path: Path, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(path)
        write(link)
        assert link.is_symlink()

    def test_two_blobs_of_one_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="the same name"):
            write_archive(tmp_path / "x", weight_blobs() * 2, lambda _: encode(make_manifest()))
