"""Bad input gives one clear error of our family, and a failed write loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import exporter
import loader
from archive.documents import check_document
from archive.reading import open_archive
from schema.debug import Debug
from schema.errors import (
    AccessError,
    ArchiveError,
    FormatError,
    IntegrityError,
    OperatorError,
    UnsupportedError,
    UsageError,
    VersionError,
)
from tests.models import cases
from tests.rewriting import NodeRow, caller, rewrite


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = cases()["dynamic"]()
    path = tmp_path_factory.mktemp("original") / "model"
    exporter.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, path=path)
    return path


def test_an_unchanged_rewrite_loads(original: Path, tmp_path: Path) -> None:
    same = rewrite(original, tmp_path / "same", lambda documents, manifest: None)
    assert same.read_bytes() == original.read_bytes()


def addition(documents: dict[str, Any]) -> NodeRow:
    return caller(documents, "aten::add.Tensor")


def _keywords(documents: dict[str, Any], names: list[str], operands: list[int]) -> None:
    documents["graph"]["keywords"].append([names, operands])
    addition(documents)["keywords"] = len(documents["graph"]["keywords"]) - 1


def _container(documents: dict[str, Any], name: str, context: list[Any]) -> None:
    documents["calls"]["types"].append({"name": name, "kind": "object", "fields": [], "dumped": True})
    place = len(documents["calls"]["types"]) - 1
    signature = documents["calls"]["entries"][0][1]
    signature[3] = ["branch", place, context, [["leaf"]] * 4]


def _key(documents: dict[str, Any], key: str) -> None:
    types = documents["calls"]["types"]
    types.append({"name": "builtins.dict", "kind": "builtin", "fields": [], "dumped": False})
    args = documents["calls"]["entries"][0][1][2][3][0]
    args[3][0] = ["branch", len(types) - 1, ["list", [key]], [["leaf"]]]


def _places(rows: list[Any], count: int) -> range:
    return range(len(rows) - 1, len(rows) - 1 + count)


def _nested(depth: int) -> Any:
    literal: Any = 1
    for _ in range(depth):
        literal = ["list", [literal]]
    return literal


def _tensor_value(documents: dict[str, Any]) -> list[Any]:
    return next(row for row in documents["graph"]["values"] if row[0] == "tensor")


def _rename(documents: dict[str, Any], name: str) -> None:
    NodeRow(documents["graph"]["graphs"][0], "x")["names"] = name


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], type[ArchiveError], str]] = {
    "a newer major version": (lambda d, m: m.update(format=[99, 0]), VersionError, "99.0.*upgrade"),
    "a feature that is not known": (lambda d, m: m.update(features=["lora"]), VersionError, "needs lora"),
    "a node name that is code": (lambda d, m: _rename(d, "x=print(1)"), FormatError, "not an identifier"),
    "two nodes of one name": (lambda d, m: _rename(d, "y"), FormatError, "two nodes"),
    "a keyword as a name": (lambda d, m: _rename(d, "class"), FormatError, "not an identifier"),
    "an operand out of range": (
        lambda d, m: addition(d).set_operand(0, -999),
        FormatError,
        "no node before it",
    ),
    "an argument out of range": (lambda d, m: addition(d).set_operand(1, 999), FormatError, "argument 999 of"),
    "a value out of range": (lambda d, m: addition(d).__setitem__("values", 999), FormatError, "value 999 of"),
    "columns of different lengths": (
        lambda d, m: d["graph"]["graphs"][0]["values"].pop(),
        FormatError,
        "entries for .* nodes",
    ),
    "more arguments than operands": (
        lambda d, m: addition(d).__setitem__("arities", 4),
        FormatError,
        "operands for",
    ),
    "an argument that holds itself": (
        lambda d, m: d["graph"]["arguments"].append(["list_of", [len(d["graph"]["arguments"]), -1]]),
        FormatError,
        "argument .* of",
    ),
    "an argument that doubles at every row": (
        lambda d, m: d["graph"]["arguments"].extend(
            ["list_of", [place, place, -1]] for place in _places(d["graph"]["arguments"], 40)
        ),
        FormatError,
        "nested too deep, or of too many parts",
    ),
    "an argument name that is code": (
        lambda d, m: _keywords(d, ["a=0, b"], [0]),
        FormatError,
        "not an identifier",
    ),
    "an operator of files": (
        lambda d, m: d["graph"]["targets"].__setitem__(-1, "aten::from_file.default"),
        OperatorError,
        "forbidden",
    ),
    "an operator that torch does not have": (
        lambda d, m: d["graph"]["targets"].__setitem__(-1, "aten::no_such.default"),
        OperatorError,
        "knows no operator aten::no_such.default",
    ),
    "a custom operator": (
        lambda d, m: d["graph"]["targets"].__setitem__(-1, "torchvision::nms.default"),
        OperatorError,
        r'allow_ops=\["torchvision"\]',
    ),
    "a function that is not on the list": (
        lambda d, m: d["graph"]["targets"].__setitem__(-1, "python::torch.load"),
        OperatorError,
        "no function that an archive may call",
    ),
    "a function by attribute": (
        lambda d, m: d["graph"]["targets"].__setitem__(-1, "python::torch.os.system"),
        OperatorError,
        "no function",
    ),
    "an expression of what is not there": (
        lambda d, m: d["constraints"]["expressions"].append(["apply", "Add", [0, 10**6]]),
        FormatError,
        "expression 1000000 of",
    ),
    "a function that is not sympy's": (
        lambda d, m: d["constraints"]["expressions"].append(["apply", "eval", [0]]),
        FormatError,
        "unknown function 'eval'",
    ),
    "a tower of powers": (
        lambda d, m: d["constraints"]["expressions"].extend(
            [["integer", 9**9], ["apply", "Pow", [len(d["constraints"]["expressions"])] * 2]]
        ),
        FormatError,
        "an exponent over",
    ),
    "a symbol that is code": (
        lambda d, m: d["constraints"]["symbols"][0].__setitem__(0, "s.x"),
        FormatError,
        "not an identifier",
    ),
    "a container that is imported": (
        lambda d, m: d["calls"]["types"][0].update(name="os.system"),
        FormatError,
        "no container of Python or torch",
    ),
    "a qualified name with a quote": (
        lambda d, m: d["signature"]["inputs"][0].__setitem__(2, 'a".b'),
        FormatError,
        "not a qualified name",
    ),
    "a signature that does not fit": (lambda d, m: d["signature"]["inputs"].pop(), FormatError, "refuses the program"),
    "a dialect that is not there": (lambda d, m: d["graph"].update(dialect="X"), FormatError, "no dialect 'X'"),
    "no graph": (lambda d, m: d["graph"].update(graphs=[]), FormatError, "no graph"),
    "a class of Python under another kind": (
        lambda d, m: _container(d, "collections.defaultdict", ["dict", ["a"], ["b"]]),
        FormatError,
        "a container of Python or torch as one of a user's",
    ),
    "a key that ends a text in code": (
        lambda d, m: _key(d, 'x" + print(1) + "'),
        FormatError,
        "holds a quote",
    ),
    "a module path that is code": (
        lambda d, m: d["graph"]["frames"][0].__setitem__(2, 'x", 0) or ("'),
        FormatError,
        "holds a quote",
    ),
    "a step over private attributes": (
        lambda d, m: d["constraints"]["symbols"][0][4][0][1].insert(0, ["attribute", "__class__"]),
        FormatError,
        "no step",
    ),
    "an expression that doubles at every row": (
        lambda d, m: d["constraints"]["expressions"].extend(
            ["apply", "Mul", [place, place]] for place in _places(d["constraints"]["expressions"], 40)
        ),
        FormatError,
        "too large",
    ),
    "a value that doubles at every row": (
        lambda d, m: d["graph"]["values"].extend(
            ["list", [place, place]] for place in _places(d["graph"]["values"], 40)
        ),
        FormatError,
        "too many parts",
    ),
    "a value that holds itself": (
        lambda d, m: d["graph"]["values"].append(["list", [len(d["graph"]["values"])]]),
        FormatError,
        "value .* of",
    ),
    "modules inside each other without end": (
        lambda d, m: d["graph"]["frames"].extend([place, "k", "p", "t"] for place in range(1, 1000)),
        FormatError,
        "modules inside each other|module frame",
    ),
    "a literal that is too deep": (
        lambda d, m: d["graph"]["arguments"].append(_nested(200)),
        FormatError,
        "nested too deep",
    ),
    "a tensor of too many dimensions": (
        lambda d, m: _tensor_value(d).__setitem__(slice(2, 4), [[1] * 100, [1] * 100]),
        FormatError,
        "100 dimensions",
    ),
    "a fraction over nothing": (
        lambda d, m: d["constraints"]["expressions"].append(["rational", 1, 0]),
        FormatError,
        "a fraction over 0",
    ),
    "a symbol that cannot be": (
        lambda d, m: d["constraints"]["symbols"][0].__setitem__(1, ["positive", "negative"]),
        FormatError,
        "no such symbol",
    ),
    "an operator of TorchScript's lists": (
        lambda d, m: d["graph"]["targets"].__setitem__(-1, "aten::append.t"),
        OperatorError,
        "TorchScript",
    ),
    "an operator that trusts its offsets": (
        lambda d, m: d["graph"]["targets"].__setitem__(-1, "aten::_reshape_alias.default"),
        OperatorError,
        "forbidden",
    ),
    "a weight under the name of another": (
        lambda d, m: m["methods"][0]["state"][0].update(key="linear.wight"),
        FormatError,
        "not the tensor of its name",
    ),
    "a transform that is not left": (
        lambda d, m: d["graph"]["targets"].__setitem__(
            d["graph"]["targets"].index("aten::add.Tensor"), "python::predispatch._vmap_increment_nesting"
        ),
        FormatError,
        "enters vmap levels",
    ),
    "a node that is called self": (lambda d, m: _rename(d, "self"), FormatError, "not the name of a node"),
    "unknown fields": (lambda d, m: d["graph"].update(more=1), FormatError, "canonical"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_by_name(name: str, original: Path, tmp_path: Path) -> None:
    change, kind, message = HOSTILE[name]
    path = rewrite(original, tmp_path / "hostile", change)
    with pytest.raises(kind, match=message) as caught:
        loader.load(path)
    assert "\n" not in str(caught.value)
    assert not loader.verify(path).ok


def test_stack_traces_that_would_fill_the_memory_are_refused() -> None:
    frames = ["x" * 500_000]
    for stacks in ([[0, 0, 0]], [[0, 0]] * 300):
        with pytest.raises(FormatError, match="a stack trace that is too long"):
            check_document(Debug(frames=frames, stacks=stacks), ("debug",))
    check_document(Debug(frames=frames, stacks=[[0, 0]] * 200), ("debug",))


def test_every_truncation_is_refused(original: Path, tmp_path: Path) -> None:
    content, cut = original.read_bytes(), tmp_path / "cut"
    for size in {*range(0, len(content), 97), len(content) - 1}:
        cut.write_bytes(content[:size])
        with pytest.raises(FormatError):
            loader.load(cut)


def test_every_changed_byte_is_noticed(original: Path, tmp_path: Path) -> None:
    content, changed = bytearray(original.read_bytes()), tmp_path / "changed"
    for place in range(0, len(content), 61):
        content[place] ^= 4
        changed.write_bytes(content)
        content[place] ^= 4
        with pytest.raises(ArchiveError):
            loader.load(changed, verify="full")


def test_a_changed_weight_is_noticed_on_request(tmp_path: Path) -> None:
    path = tmp_path / "model"
    exporter.export(torch.nn.Linear(64, 64), (torch.ones(1, 64),), path=path)
    with open_archive(path) as archive:
        place = archive.entries["weight"].start + 5
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    loader.load(path)
    for act in (lambda: loader.load(path, verify="full"), lambda: loader.load_module(path, verify="full")):
        with pytest.raises(IntegrityError, match=r"bytes of a tensor have changed \(at weight\)"):
            act()
    report = loader.verify(path)
    assert [check.name for check in report.checks if not check.ok] == ["digests"]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda path: None, AccessError, "model"),
        (lambda path: path.mkdir(), AccessError, "it is a folder"),
        (lambda path: path.write_bytes(b""), FormatError, "empty|missing|bytes"),
        (lambda path: path.write_text("no archive at all, but text"), FormatError, "archive"),
        (lambda path: torch.save({}, path), FormatError, "archive"),
    ],
)
def test_what_is_no_archive(
    make: Callable[[Path], Any], kind: type[ArchiveError], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "model")
    for act in (loader.load, loader.load_module, open_archive):
        with pytest.raises(kind, match=message) as caught:
            act(tmp_path / "model")
        assert "\n" not in str(caught.value)
    assert not loader.verify(tmp_path / "model").ok


def test_weights_alone_are_not_an_archive(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(FormatError, match="archive export"):
        loader.load(tmp_path / "weights.safetensors")


def test_a_method_that_is_not_there(original: Path) -> None:
    with pytest.raises(UsageError, match="forward"):
        loader.load(original, method="decode")


def test_a_device_that_is_not_there(original: Path) -> None:
    with pytest.raises(UsageError, match=r"cuda:99.*not available"):
        loader.load(original, device="cuda:99")
    with pytest.raises(UsageError, match="no such device"):
        loader.load(original, device="toaster")


class Text(torch.nn.Module):
    def forward(self, x: torch.Tensor, text: object) -> torch.Tensor:
        return x + 1


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: _with_state("__program__/x"), "reserved"),
        (lambda: _with_state('a"b'), "cannot be an attribute's name"),
        (lambda: exporter.capture(Text(), (torch.ones(1), "it's")), "holds a quote"),
        (lambda: exporter.capture(Text(), (torch.ones(1), {"it's": torch.ones(1)})), "holds a quote"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_is_written(
    program: Callable[[], torch.export.ExportedProgram], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_text("the older file")
    with pytest.raises(UnsupportedError, match=message):
        exporter.save(program(), path)
    assert path.read_text() == "the older file"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def _with_state(name: str, tensor: torch.Tensor | None = None) -> torch.export.ExportedProgram:
    program = exporter.capture(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    program.state_dict[name] = torch.ones(2) if tensor is None else tensor
    return program


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    program = exporter.capture(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    with pytest.raises(AccessError, match="missing"):
        exporter.save(program, tmp_path / "missing" / "model")


@pytest.mark.parametrize("program", [{}, torch.nn.Linear(1, 1), {"forward": None}, {"not a name": None}])
def test_what_is_no_program(program: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        exporter.save(program, tmp_path / "model")
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_recorded(tmp_path: Path) -> None:
    class Outside(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(4)[x]

    with pytest.raises(UsageError, match="fails on its own example inputs"):
        exporter.export(Outside(), (torch.tensor([9]),), path=tmp_path / "model", record_outputs=True)
    assert not list(tmp_path.iterdir())


def test_errors_survive_a_process_border() -> None:
    import pickle

    error = FormatError("broken", loc=("graph", 3), remedy="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (FormatError, "broken (at graph.3); mend it")
