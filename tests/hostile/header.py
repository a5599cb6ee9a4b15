"""The safetensors header, and what is before and behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schema.limits import DEFAULT_LIMITS
from tests.hostile.cases import Builder, Case, changed, content, header

_WEIGHT = b'"linear.weight":'


def _replaced(old: bytes, new: bytes) -> Builder:
    def change(text: bytes) -> bytes:
        assert old in text
        return text.replace(old, new, 1)

    return header(change)


def _rows(change: Callable[[dict[str, Any]], Any]) -> Builder:
    def change_text(text: bytes) -> bytes:
        rows = json.loads(text)
        change(rows)
        return json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()

    return header(change_text)


def _row(**fields: Any) -> Builder:
    """Change the row of a weight."""
    return _rows(lambda rows: rows["linear.weight"].update(fields))


def _last(rows: dict[str, Any]) -> dict[str, Any]:
    return max((row for row in rows.values() if "data_offsets" in row), key=lambda row: row["data_offsets"])


def _move(rows: dict[str, Any], name: str, start: int, stop: int) -> None:
    offsets = rows[name]["data_offsets"]
    rows[name]["data_offsets"] = [offsets[0] + start, offsets[1] + stop]
    rows[name]["shape"], rows[name]["dtype"] = [offsets[1] + stop - offsets[0] - start], "U8"


def _sparse(length: int, start: bytes) -> Builder:
    """A file that is much longer than the disk that it takes."""

    def build(folder: Path) -> Path:
        with open(folder / "bad", "wb") as file:
            file.write(start)
            file.truncate(length)
        return folder / "bad"

    return build


def _prefix(length: int) -> bytes:
    return length.to_bytes(8, "little") + b"{"


def _many_rows(text: bytes) -> bytes:
    row = b',"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return text.rstrip(b" ")[:-1] + b"".join(row % number for number in range(60_000)) + b"}"


_LIMIT = DEFAULT_LIMITS.header_bytes

CASES = [
    Case("an empty file", content(b""), "the file is empty"),
    Case("a file of seven bytes", content(b"\x10\0\0\0\0\0\0"), "only 7 bytes"),
    Case("a length and no header", changed(lambda data: data[:8]), "only 8 bytes"),
    Case("a header that ends too soon", changed(lambda data: data[:100]), "truncated: at least .* missing"),
    Case(
        "a length of 2^64 - 1", content(b"\xff" * 8 + b"{}"), r"declares a header of 18446744073709551615 .*at header"
    ),
    Case("a length of 2^63", content(_prefix(2**63) + b"}"), r"declares a header of 9223372036854775808 .*at header"),
    Case("a header over the limit", _sparse(_LIMIT + 100, _prefix(_LIMIT + 1)), "pass limits="),
    Case("a header of spaces", _sparse(_LIMIT + 8, _prefix(_LIMIT)), "a safetensors file, not a program archive"),
    Case("a header of 60,000 more tensors", header(_many_rows), r"60000 .* not in the manifest \(at header"),
    Case("a header that is no JSON", _replaced(b'"dtype":', b'"dtype"='), r"not a valid .* header.*\(at header\)"),
    Case("a header that is not UTF-8", _replaced(_WEIGHT, b'"linear.\xff":'), r"header.*\(at header\)"),
    Case("a list as header", header(lambda text: b"[" + text[1:].rstrip(b" ")[:-1] + b"]"), "not a program archive"),
    Case("lists in each other", _replaced(b'"shape":[', b'"shape":[' + b"[" * 50_000), r"not a valid .*\(at header\)"),
    Case("a million empty lists", _replaced(b'"shape":[', b'"shape":[' + b"[]," * 10**6), r"not a valid .*at header"),
    Case("a tensor that is there twice", header(lambda text: _twice(text)), r"repeated keys.*\(at header\)"),
    Case("a field that is there twice", _replaced(b'"dtype":', b'"dtype":"U8","dtype":'), r"repeated.*\(at header\)"),
    Case("a space before the header", header(lambda text: b" " + text), "not a program archive"),
    Case("a space in the header", _replaced(b'"dtype":', b'"dtype": '), r"canonical form.*\(at header\)"),
    Case("an escape in the header", _replaced(_WEIGHT, b'"linear\\u002eweight":'), r"canonical form.*\(at header\)"),
    Case("a tab behind the header", header(lambda text: text + b"\t"), r"canonical form.*\(at header\)"),
    Case("a second value behind the header", header(lambda text: text + b"{}"), r"not a valid .*\(at header\)"),
    Case("a tensor without a name", _replaced(_WEIGHT, b'"":'), r"without a name \(at header\)"),
    Case("half of a surrogate as a name", _replaced(_WEIGHT, b'"\\ud800":'), r"\(at header\)"),
    Case("no metadata", _rows(lambda rows: rows.pop("__metadata__")), r"__metadata__.*\(at header\)"),
    Case("more metadata", _rows(lambda rows: rows["__metadata__"].update(a="b")), r"__metadata__.*\(at header\)"),
    Case("metadata twice", _replaced(_WEIGHT, b'"__metadata__":'), r"\(at header\)"),
    Case("metadata at the end", _rows(lambda rows: rows.update(__metadata__=rows.pop("__metadata__"))), "__metadata__"),
    Case("an unknown field", _row(more=1), r"unknown field `more`.*\(at header\)"),
    Case("a missing field", _rows(lambda rows: rows["linear.weight"].pop("shape")), r"`shape`.*\(at header\)"),
    Case("a size below zero", _row(shape=[-4, -4]), r"\(at header\)"),
    Case("an offset that is no whole number", _row(data_offsets=[0.5, 64.5]), r"\(at header\)"),
    Case("an offset over 2^64", _row(data_offsets=[2**64, 2**64 + 64]), r"\(at header"),
    Case("an offset that is a text", _row(data_offsets=["0", "64"]), r"\(at header\)"),
    Case("three offsets", _row(data_offsets=[0, 64, 64]), r"\(at header\)"),
    Case("an unknown type", _row(dtype="Q9"), r"dtype 'Q9' \(at header.linear.weight\)"),
    Case("a type of four bits", _row(dtype="F4", shape=[128]), r"dtype 'F4' \(at header.linear.weight\)"),
    Case("a product of sizes over 2^64", _row(shape=[2**40, 2**40]), r"64 bytes do not hold.*header.linear.weight"),
    Case("a size over 2^63", _row(shape=[0, 2**63], data_offsets=[0, 0]), r"<= 9223372036854775807 .*\(at header\)"),
    Case("65 dimensions", _row(shape=[1] * 65), r"length <= 64 .*\(at header\)"),
    Case("a tensor that ends before it starts", _row(data_offsets=[64, 0]), r"-64 bytes.*header.linear.weight"),
    Case("tensors that overlap", _rows(lambda rows: _move(rows, "linear.bias", -4, 0)), "overlaps another tensor"),
    Case("bytes of no tensor", _rows(lambda rows: _move(rows, "linear.bias", 4, 0)), "bytes before it unused"),
    Case("a tensor behind the end", _rows(lambda rows: _behind(rows)), "truncated: 1 byte is missing"),
    Case("a tensor that the manifest does not know", _rows(lambda rows: _stray(rows)), r"manifest \(at header.stray\)"),
    Case("the manifest is missing", _replaced(b'"__program__/manifest":', b'"a":'), "not a program archive"),
    Case(
        "the manifest's digest is missing", _replaced(b'"__program__/manifest.sha256":', b'"a":'), r"sha256 is missing"
    ),
    Case("bytes behind the last tensor", changed(lambda data: data + b"\0"), "1 bytes follow the last tensor"),
    Case("two archives in one file", changed(lambda data: data * 2), "bytes follow the last tensor"),
    Case("a zip file behind the archive", changed(lambda data: data + b"PK\3\4" + bytes(30)), "34 bytes follow"),
    Case("a script before the archive", changed(lambda data: b"#!/bin/sh\nexit\n" + data), "not a program archive"),
    Case("a zip file", content(b"PK\3\4" + bytes(40)), "a zip file"),
    Case("a pickle file", content(b"\x80\4\x95" + bytes(40)), "a pickle file.*nothing here unpickles"),
    Case("a file of zeros as large as a disk", _sparse(2**42, b""), "not a program archive"),
]


def _twice(text: bytes) -> bytes:
    start = text.index(_WEIGHT)
    stop = text.index(b"}", start) + 1
    return text[:stop] + b"," + text[start:stop] + text[stop:]


def _behind(rows: dict[str, Any]) -> None:
    row = _last(rows)
    row["data_offsets"][1] += 1
    row["shape"] = [row["shape"][0] + 1]


def _stray(rows: dict[str, Any]) -> None:
    end = _last(rows)["data_offsets"][1]
    rows["stray"] = {"dtype": "U8", "shape": [0], "data_offsets": [end, end]}
