"""Tensors: views of storages, ties, what is made of others, and which of them is whose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schema.names import STORAGES
from tests.hostile.cases import Builder, Case, manifest, parts
from tests.hostile.parts import Parts

_PLACE = r"\(at manifest.tensors.0\)"


def _tensor(**fields: Any) -> Builder:
    """The first tensor, a float32[4, 4], is described otherwise."""
    return manifest(lambda taken: taken["tensors"][0].update(fields))


def _storage(**fields: Any) -> Builder:
    return manifest(lambda taken: taken["storages"][0].update(fields))


def _view(**fields: Any) -> Builder:
    """One more tensor views the first storage."""

    def change(taken: dict[str, Any]) -> None:
        row = {"name": "view", "dtype": "float32", "shape": [4, 4], "storage": 0, **fields}
        taken["tensors"].append(row)

    return manifest(change)


def _method(change: Callable[[dict[str, Any]], Any]) -> Builder:
    return manifest(lambda taken: change(taken["methods"][0]))


def _retyped(taken: Parts) -> None:
    """A weight is stored as another type of the same size than it is described as."""
    blob = taken.blobs["linear.weight"]
    taken.blobs["linear.weight"] = blob._replace(code="I32")


_SPARSE = {"layout": "sparse_coo", "parts": [0, 1]}
_WRAPPER = {"module": "os", "qualname": "system", "parts": [{"key": "a", "tensor": 0}]}

CASES = [
    Case(
        "a view that ends behind its storage",
        _view(shape=[17]),
        r"needs 68 bytes of a storage of 64 bytes \(at manifest.tensors.4\)",
    ),
    Case("a view that begins behind its storage", _view(offset=1), r"needs 68 bytes of a storage of 64 bytes"),
    Case("a view with strides that leave its storage", _view(shape=[2], strides=[16]), r"needs 68 bytes of a storage"),
    Case(
        "a view of 2^120 elements of one",
        _view(shape=[2**60, 2**60], strides=[0, 0]),
        r"out of range \(at manifest.tensors.4\)",
    ),
    Case(
        "a view whose extent is over 2^64", _view(shape=[2**31, 2], strides=[2**40, 1]), r"needs \d+ bytes|out of range"
    ),
    Case("an offset below zero", _view(offset=-1), r"out of range \(at manifest.tensors.4\)"),
    Case("a stride below zero", _view(strides=[-4, 1]), r"out of range \(at manifest.tensors.4\)"),
    Case("a size below zero", _view(shape=[-4, -4]), r"out of range \(at manifest.tensors.4\)"),
    Case("a size over 2^63", _view(shape=[2**63]), r"out of range \(at manifest.tensors.4\)"),
    Case("65 dimensions", _view(shape=[1] * 65), r"65 dimensions \(at manifest.tensors.4\)"),
    Case("fewer strides than dimensions", _view(strides=[1]), r"1 strides for 2 dimensions"),
    Case("a storage that is not there", _view(storage=99), r"storage 99 of 4 \(at manifest.tensors.4\)"),
    Case("a storage below zero", _view(storage=-1), r"storage -1 of 4 \(at manifest.tensors.4\)"),
    Case("an unknown type", _tensor(dtype="object"), rf"unknown element type 'object' {_PLACE}"),
    Case("a quantized type", _tensor(dtype="quint8"), rf"unknown element type 'quint8' {_PLACE}"),
    Case(
        "a type that is not that of the file",
        _tensor(dtype="int32"),
        r"int32\[4, 4\] stored as F32.*\(at header.linear.weight\)",
    ),
    Case("a type in the file that is not the tensor's", parts(_retyped), r"stored as I32.*\(at header.linear.weight\)"),
    Case(
        "a shape that is not that of the file",
        _tensor(shape=[2, 8]),
        r"stored as F32\[4, 4\] \(at header.linear.weight\)",
    ),
    Case(
        "a device that is not there",
        _tensor(device="cuda:999"),
        r"no such device: 'cuda:999'|cuda:999 is not available",
        frozenset({"inspect"}),
    ),
    Case("a device that is none", _tensor(device="toaster"), r"no such device", frozenset({"inspect"})),
    Case("a device that is code", _tensor(device="__import__('os')"), r"no such device", frozenset({"inspect"})),
    Case("a conjugate of a real tensor", _tensor(conjugate=True), rf"a conjugate of float32 {_PLACE}|that is not it"),
    Case("two tensors of one name", _view(name="linear.bias"), r"'linear.bias' is there twice \(at manifest.tensors\)"),
    Case("a tie to what does not stand before it", _tensor(tied=1), rf"that does not stand before it {_PLACE}"),
    Case("a tie to itself", _tensor(tied=0), rf"that does not stand before it {_PLACE}"),
    Case("a tie of different tensors", _view(tied=0, shape=[16]), r"which differs \(at manifest.tensors.4\)"),
    Case(
        "a sparse tensor of itself",
        _tensor(sparse={"layout": "sparse_coo", "parts": [0, 0]}),
        rf"do not stand before it {_PLACE}",
    ),
    Case(
        "a sparse tensor of what is not there",
        _tensor(sparse={"layout": "sparse_coo", "parts": [98, 99]}),
        rf"do not stand before it {_PLACE}",
    ),
    Case(
        "a sparse tensor of an unknown layout",
        _view(storage=-1, sparse={"layout": "pickle", "parts": [0, 1]}),
        r"sparse tensor of layout 'pickle'",
    ),
    Case(
        "a sparse tensor of one part",
        _view(storage=-1, sparse={"layout": "sparse_coo", "parts": [0]}),
        r"a malformed sparse tensor",
    ),
    Case(
        "a sparse tensor that is a view too",
        _view(sparse=_SPARSE),
        r"and a view of a storage \(at manifest.tensors.4\)",
    ),
    Case("a wrapper of itself", _tensor(subclass=_WRAPPER), rf"do not stand before it {_PLACE}"),
    Case("a wrapper of nothing", _view(storage=-1, subclass=_WRAPPER | {"parts": []}), r"a wrapper of no tensors"),
    Case(
        "a wrapper whose class is code",
        _view(storage=-1, subclass=_WRAPPER | {"qualname": "a; b"}),
        r"name no class \(at manifest.tensors.4\)",
    ),
    Case(
        "a weight of a class to import",
        manifest(lambda taken: _wrapped(taken)),
        r"class of wrapper tensors os.system",
        frozenset({"inspect"}),
    ),
    Case("a storage that is not in the file", _storage(name="elsewhere"), r"described, but not in the file"),
    Case("a storage by a path", _storage(name="../../etc/passwd"), r"described, but not in the file"),
    Case("a storage's size that is wrong", _storage(nbytes=65), r"65 bytes described, 64 in the file"),
    Case("a digest of nothing", _storage(blake3=b""), r"a digest of 0 bytes"),
    Case("an absent storage in the file", _storage(absent=True), r"not in the manifest \(at header.linear.weight\)"),
    Case(
        "a state of a tensor that is not there",
        _method(lambda method: method["state"][0].update(tensor=99)),
        r"tensor 99 of 4 \(at manifest.methods.forward.state.linear.weight\)",
    ),
    Case(
        "a state with one name twice",
        _method(lambda method: method["state"].append(method["state"][0])),
        r"'linear.weight' is there twice",
    ),
    Case(
        "a state under another name",
        _method(lambda method: method["state"][0].update(key="linear.wight")),
        r"not the tensor of its name .*linear.wight",
    ),
    Case(
        "a state under a name of ours",
        _method(lambda method: method["state"][0].update(key="__program__/x", tensor=2)),
        r"not the tensor of its name",
    ),
    Case(
        "an example of a tensor that is not there",
        _method(lambda method: method["example"][0].update(tensor=99)),
        r"tensor 99 of 4 \(at manifest.methods.forward.example.0\)",
    ),
    Case(
        "an example of too few values",
        _method(lambda method: method["example"].pop()),
        r"the example does not fit its tree \(at calls.example\)",
        frozenset({"inspect"}),
    ),
]


def _wrapped(taken: dict[str, Any]) -> None:
    """What the program reads as its second example is a wrapper."""
    taken["features"] = ["subclass"]
    taken["tensors"].append(
        {"name": f"{STORAGES}x", "dtype": "float32", "shape": [4], "storage": -1, "subclass": _WRAPPER}
    )
    taken["methods"][0]["example"][1]["tensor"] = 4
