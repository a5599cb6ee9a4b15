"""The zstd frames of sections."""

from __future__ import annotations

from collections.abc import Callable

import zstandard

from schema.codec import compress
from schema.limits import DEFAULT_LIMITS
from tests.hostile.cases import MANIFEST_ONLY, Builder, Case, parts
from tests.hostile.parts import Parts

_PLACE = r"\(at forward.graph\)"
_MOST = DEFAULT_LIMITS.section_bytes


def _frame(change: Callable[[bytes], bytes]) -> Builder:
    """The right content in another frame."""
    return parts(lambda taken: taken.put_frame("graph", change(taken.content("graph"))))


def _with(**options: bool) -> Builder:
    return _frame(zstandard.ZstdCompressor(**({"write_checksum": True} | options)).compress)


def _size(declared: int, described: int) -> Callable[[Parts], None]:
    """A frame of four mebibytes that declares, and is described as, something else."""

    def change(taken: Parts) -> None:
        frame = bytearray(compress(bytes(4 << 20)))
        assert frame[4] >> 6 == 2, "the size is declared in four bytes"
        place = 5 if frame[4] & 0x20 else 6
        frame[place : place + 4] = declared.to_bytes(4, "little")
        taken.put_frame("graph", bytes(frame), described)

    return change


def _bomb(size: int) -> Callable[[Parts], None]:
    return lambda taken: taken.put_content("graph", bytes(size))


def _skippable(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip" + compress(data)


def _windowed(data: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_checksum=True, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(data) + stream.flush()


def _of_a_dictionary(data: bytes) -> bytes:
    samples = [data[start : start + 200] * 3 for start in range(0, len(data), 20)]
    dictionary = zstandard.train_dictionary(1024, samples * 8)
    return zstandard.ZstdCompressor(dict_data=dictionary, write_checksum=True).compress(data)


def _flipped(data: bytes) -> bytes:
    frame = bytearray(compress(data))
    frame[len(frame) // 2] ^= 8
    return bytes(frame)


CASES = [
    Case("a bomb", parts(_bomb(_MOST)), rf"declares {_MOST} bytes, more than \d+ {_PLACE}", MANIFEST_ONLY),
    Case(
        "a bomb over the limit",
        parts(_bomb(_MOST + 1)),
        rf"declares {_MOST + 1} bytes, more than .*{_PLACE}",
        MANIFEST_ONLY,
    ),
    Case("a size that is too large", parts(_size(5 << 20, 5 << 20)), _PLACE, MANIFEST_ONLY),
    Case("a size that is too small", parts(_size(1 << 20, 1 << 20)), _PLACE, MANIFEST_ONLY),
    Case(
        "a size that is not the described one",
        parts(_size(1 << 20, 4 << 20)),
        rf"declares \d+ bytes where \d+ are due {_PLACE}",
        MANIFEST_ONLY,
    ),
    Case(
        "a described size of 2^40",
        parts(lambda taken: taken.section("graph").update(decoded_nbytes=2**40)),
        rf"where 1099511627776 are due {_PLACE}",
        MANIFEST_ONLY,
    ),
    Case(
        "a described size below zero",
        parts(lambda taken: taken.section("graph").update(decoded_nbytes=-1)),
        "decodes to -1 bytes",
    ),
    Case("no declared size", _with(write_content_size=False), rf"declares -1 bytes where .*{_PLACE}", MANIFEST_ONLY),
    Case("no checksum", _with(write_checksum=False), rf"without checksum.*{_PLACE}", MANIFEST_ONLY),
    Case("a dictionary", _frame(_of_a_dictionary), rf"with a dictionary {_PLACE}", MANIFEST_ONLY),
    Case("two frames", _frame(lambda data: compress(data) + compress(b"more")), _PLACE, MANIFEST_ONLY),
    Case(
        "the content in two frames",
        _frame(lambda data: compress(data[:100]) + compress(data[100:])),
        _PLACE,
        MANIFEST_ONLY,
    ),
    Case("a skippable frame before it", _frame(_skippable), _PLACE, MANIFEST_ONLY),
    Case(
        "a skippable frame behind it", _frame(lambda data: compress(data) + _skippable(b"")[:12]), _PLACE, MANIFEST_ONLY
    ),
    Case("bytes behind it", _frame(lambda data: compress(data) + b"\0"), _PLACE, MANIFEST_ONLY),
    Case("a frame that is cut", _frame(lambda data: compress(data)[:-5]), _PLACE, MANIFEST_ONLY),
    Case("a changed bit under a right digest", _frame(_flipped), _PLACE, MANIFEST_ONLY),
    Case("a window of 128 MiB", _frame(_windowed), _PLACE, MANIFEST_ONLY),
    Case("no frame", _frame(lambda data: data), rf"not a valid zstd frame.*{_PLACE}", MANIFEST_ONLY),
    Case("nothing", _frame(lambda _: b""), _PLACE, MANIFEST_ONLY),
    Case("a frame in a frame", _frame(lambda data: compress(compress(data))), _PLACE, MANIFEST_ONLY),
    Case("a pickle", _frame(lambda _: b"\x80\x04cos\nsystem\n."), rf"not a valid zstd frame.*{_PLACE}", MANIFEST_ONLY),
]
