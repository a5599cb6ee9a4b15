"""Whatever tensor a program can hold survives the file exactly, or is refused when it is saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import torch
from torch import nn

import exporter
import loader
from archive import inspect
from schema.dtypes import CARRIERS, SPARSE_LAYOUTS
from schema.errors import ClassError, FormatError, UnsupportedError
from schema.manifest import Tensor
from tests.program_equality import assert_loaded_equal, describe_tensor, same
from tests.rewriting import rewrite

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{said}")  # by torch, of what it calls a prototype
    for said in ("Sparse .* tensor support is in beta", "Sparse invariant checks", "B?Complex.* support")
]
HERE = __name__


class Scaled(torch.Tensor):
    """Whole numbers of eight bits and a scale, as libraries of quantized weights have them."""

    data8: torch.Tensor
    scale: torch.Tensor
    note: dict[str, Any]

    @staticmethod
    def __new__(cls, data8: torch.Tensor, scale: torch.Tensor, note: dict[str, Any]) -> Self:
        return torch.Tensor._make_wrapper_subclass(cls, data8.shape, strides=data8.stride(), dtype=scale.dtype)

    def __init__(self, data8: torch.Tensor, scale: torch.Tensor, note: dict[str, Any]) -> None:
        self.data8, self.scale, self.note = data8, scale, note

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["data8", "scale"], self.note

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], note: Any, _size: Any, _strides: Any) -> Scaled:
        return Scaled(inner["data8"], inner["scale"], note)

    @classmethod
    def __torch_dispatch__(cls, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].data8, args[0].scale, args[0].note)
        plain = [arg.data8 * arg.scale if isinstance(arg, cls) else arg for arg in args]
        return function(*plain, **(kwargs or {}))


class Mapping(Enum):
    SYMMETRIC = "symmetric"
    ASYMMETRIC = object()


class Level(IntEnum):
    LOW = 1
    SMALL = 1


class Zero(NamedTuple):
    domain: Mapping
    point: float = 0.0


@dataclass(frozen=True)
class Granularity:
    dim: int


@dataclass
class Config:
    granularity: Granularity
    shape: torch.Size
    zero: Zero | None = None
    levels: list[Level] = field(default_factory=list)


NOTE: dict[str, Any] = {
    "axis": None,
    "block": (1, 2),
    "type": torch.int4,
    "eps": math.inf,
    "shape": torch.Size([3, 0]),
    "mapping": Mapping.ASYMMETRIC,
    "level": Level.SMALL,
    "config": Config(Granularity(-1), torch.Size([]), Zero(Mapping.SYMMETRIC), [Level.LOW]),
    Granularity(0): (Config(Granularity(1), torch.Size([2])), Zero(Mapping.SYMMETRIC, -0.0)),
}


def scaled() -> Scaled:
    return Scaled(torch.arange(3, dtype=torch.int8), torch.tensor(0.5), NOTE)


def filled(dtype: torch.dtype) -> torch.Tensor:
    """A tensor of any type, with bytes that all differ."""
    tensor = torch.empty(3, dtype=dtype)
    content = torch.arange(1, 1 + tensor.untyped_storage().nbytes(), dtype=torch.uint8)
    tensor.untyped_storage().copy_(content.untyped_storage())
    return tensor


def complex_numbers() -> torch.Tensor:
    return torch.complex(torch.arange(6.0), torch.arange(6.0) + 1).view(2, 3)


def frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
QUANTIZED = [torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4]
GRID = torch.tensor([[0, 1.0, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0], [0, 0, 4, 5]])

STRIDED: dict[str, Callable[[], torch.Tensor]] = {
    **{name: lambda dtype=dtype: filled(dtype) for name, dtype in DTYPES.items() if dtype not in QUANTIZED},
    "no elements": lambda: torch.empty(0, 3),
    "no elements, strides of its own": lambda: torch.empty_strided((0, 3), (7, 9)),
    "no dimensions": lambda: torch.tensor(3.5),
    "not numbers": lambda: torch.tensor([math.nan, math.inf, -math.inf, -0.0]),
    "transposed": lambda: torch.arange(24.0).view(4, 6).t(),
    "expanded": lambda: torch.arange(3.0).expand(5, 3),
    "expanded from a number": lambda: torch.tensor(2.0).expand(3, 4),
    "from the middle": lambda: torch.arange(24.0)[5:9],
    "every third": lambda: torch.arange(24.0)[::3],
    "overlapping itself": lambda: torch.arange(24.0).as_strided((4, 3), (1, 2)),
    "channels last": lambda: torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels last in 3d": lambda: torch.ones(2, 3, 4, 5, 2).to(memory_format=torch.channels_last_3d),
    "conjugate": lambda: complex_numbers().conj(),
    "conjugate, transposed": lambda: complex_numbers().mH,
    "conjugate of complex128": lambda: complex_numbers().to(torch.complex128).conj(),
    "negative": lambda: complex_numbers().conj().imag,
    "conjugate and negative": lambda: torch._neg_view(complex_numbers().conj()),
    "imaginary part": lambda: complex_numbers().imag,
    "parameter": lambda: nn.Parameter(torch.ones(3)),
    "parameter without gradient": lambda: frozen(torch.ones(3)),
    "parameter of whole numbers": lambda: frozen(torch.ones(3, dtype=torch.int8)),
    "parameter that is conjugate": lambda: nn.Parameter(complex_numbers().conj()),
    "gradient without parameter": lambda: torch.ones(3, requires_grad=True),
    "buffer": lambda: nn.Buffer(torch.ones(3)),
}
SPARSE: dict[str, Callable[[], torch.Tensor]] = {
    "coordinates": lambda: GRID.to_sparse(),
    "coordinates, unordered": lambda: torch.sparse_coo_tensor([[2, 0, 0]], [1.0, 2.0, 3.0], (4,)),
    "coordinates, partly dense": lambda: torch.sparse_coo_tensor([[0, 2]], [[1.0, 2.0], [3.0, 4.0]], (3, 2)),
    "coordinates of nothing": lambda: torch.sparse_coo_tensor(size=(3, 2)),
    "coordinates, of one number": lambda: torch.tensor(3.0).to_sparse(),
    "coordinates, parameter": lambda: nn.Parameter(GRID.to_sparse()),
    "csr": lambda: GRID.to_sparse_csr(),
    "csc": lambda: GRID.to_sparse_csc(),
    "bsr": lambda: GRID.to_sparse_bsr((2, 1)),
    "bsc": lambda: GRID.to_sparse_bsc((1, 2)),
    "csr with short indices": lambda: torch.sparse_csr_tensor(
        torch.tensor([0, 1, 2], dtype=torch.int32), torch.tensor([1, 0], dtype=torch.int32), torch.ones(2), (2, 2)
    ),
    "csr in batches": lambda: torch.eye(3).expand(2, 3, 3).to_sparse_csr(),
}
WRAPPERS: dict[str, Callable[[], torch.Tensor]] = {
    "wrapper": scaled,
    "wrapper, parameter": lambda: nn.Parameter(scaled()),
    "wrapper of a wrapper": lambda: Scaled(scaled(), torch.tensor(2.0), {}),
}
HUGE = {"coordinates in what no memory holds": lambda: torch.sparse_coo_tensor([[1], [2]], [1.0], (2**31, 2**31))}
TENSORS = STRIDED | SPARSE | HUGE | WRAPPERS


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Takes(nn.Module):
    def forward(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.ones(2)


class Holds(nn.Module):
    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("held", tensor)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, self.held


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.program.safetensors"


def load(path: Path, **options: Any) -> torch.export.ExportedProgram:
    return loader.load(path, **{"allow_classes": [HERE], **options})


def program_with(state: dict[str, torch.Tensor]) -> torch.export.ExportedProgram:
    program = exporter.capture(Plain(), (torch.ones(2),))
    program.state_dict.update(state)
    return program


def assert_exact(loaded: torch.Tensor, saved: torch.Tensor, name: str) -> None:
    """Everything that can be asked of a tensor, down to the bytes of its storage."""
    assert describe_tensor(loaded) == describe_tensor(saved), name
    assert isinstance(loaded, nn.Parameter) == isinstance(saved, nn.Parameter), name
    if isinstance(saved, Scaled):
        assert isinstance(loaded, Scaled)
        assert same(loaded.note, saved.note), name
        pairs = [(loaded.data8, saved.data8), (loaded.scale, saved.scale)]
    elif saved.layout is not torch.strided:
        prefix = "_" if saved.layout is torch.sparse_coo else ""
        names = [prefix + part for part in SPARSE_LAYOUTS[str(saved.layout).removeprefix("torch.")]]
        pairs = [(getattr(loaded.detach(), part)(), getattr(saved.detach(), part)()) for part in names]
        if prefix:
            assert (loaded.is_coalesced(), loaded.dense_dim()) == (saved.is_coalesced(), saved.dense_dim()), name
    else:
        pairs = []
        assert (loaded.is_conj(), loaded.is_neg()) == (saved.is_conj(), saved.is_neg()), name
        assert bytes(loaded.detach().untyped_storage()) == bytes(saved.detach().untyped_storage()), name
    for mine, theirs in pairs:
        assert_exact(mine, theirs, name)


def assert_known_equal(loaded: Any, saved: Any, name: str) -> None:
    """What a graph knows of a tensor; an archive leaves out storage offsets, and whether it is a parameter."""
    assert isinstance(loaded, Scaled) == isinstance(saved, Scaled), name
    assert describe_tensor(loaded)[1:3] == describe_tensor(saved)[1:3], name
    assert describe_tensor(loaded)[4:] == describe_tensor(saved)[4:], name
    if isinstance(saved, Scaled):
        assert same(loaded.note, saved.note), name
        assert_known_equal(loaded.data8, saved.data8, name)
    elif saved.layout is not torch.strided:
        assert loaded.dense_dim() == saved.dense_dim(), name


class TestEveryTensor:
    def test_survives_in_the_state_dictionary_and_among_the_constants(self, path: Path) -> None:
        state, constants = ({f"{home}{i}": make() for i, make in enumerate(TENSORS.values())} for home in "sc")
        program = program_with(state)
        program.constants.update(constants)
        exporter.save(program, path)
        loaded = load(path)
        assert list(loaded.state_dict) == list(program.state_dict)
        for kept, saved in ((loaded.state_dict, state), (loaded.constants, constants)):
            for name, key in zip(TENSORS, saved, strict=True):
                assert_exact(kept[key], saved[key], name)

    def test_survives_as_an_input_and_as_what_the_graph_knows_of_it(self, path: Path) -> None:
        inputs = [make() for make in TENSORS.values()]
        program = torch.export.export(Takes(), (inputs,))
        exporter.save(program, path, keep_paths=True)
        loaded = load(path, debug=True)
        assert loaded.example_inputs is not None
        for name, mine, saved in zip(TENSORS, loaded.example_inputs[0][0], inputs, strict=True):
            assert_exact(mine, saved, name)
        for name, mine, saved in zip(TENSORS, loaded.graph.nodes, program.graph.nodes, strict=False):
            assert_known_equal(mine.meta["val"], saved.meta["val"], name)

    @pytest.mark.parametrize("name", SPARSE | WRAPPERS)
    def test_is_used_by_the_graph_as_before(self, name: str, path: Path) -> None:
        program = torch.export.export(Holds(TENSORS[name]()), (torch.ones(2),))
        exporter.save(program, path, keep_paths=True)
        assert_loaded_equal(load(path, debug=True), program)
        found, expected = (each.module()(torch.ones(2))[1] for each in (load(path), program))
        assert_exact(found, expected, name)
        assert_exact(loader.load_module(path, allow_classes=[HERE])(torch.ones(2))[1], expected, name)

    def test_gives_the_same_bytes_when_it_is_saved_again(self, path: Path, tmp_path: Path) -> None:
        exporter.save(program_with({f"t{i}": make() for i, make in enumerate(TENSORS.values())}), path)
        again = tmp_path / "again"
        exporter.save(load(path, debug=True), again)
        assert again.read_bytes() == path.read_bytes()

    @pytest.mark.parametrize("name", SPARSE | WRAPPERS)
    def test_is_among_the_outputs_that_are_recorded_and_verified(self, name: str, path: Path) -> None:
        exporter.save(torch.export.export(Holds(TENSORS[name]()), (torch.ones(2),)), path, record_outputs=True)
        report = loader.verify(path, allow_classes=[HERE])
        assert report.ok, report.checks[-1].detail

    def test_is_listed(self, path: Path) -> None:
        exporter.save(program_with({"a": GRID.to_sparse_csr(), "b": nn.Parameter(scaled())}), path, examples=False)
        summary = inspect(path)
        assert summary.features == ["sparse", "subclass"]
        assert [(each.name, each.role, each.nbytes) for each in summary.tensors] == [
            ("__parts__/a/crow_indices", "part", 40),
            ("__parts__/a/col_indices", "part", 40),
            ("__parts__/a/values", "part", 20),
            ("a", "buffer", 100),
            ("__parts__/b/data8", "part", 3),
            ("__parts__/b/scale", "part", 4),
            ("b", "parameter", 7),
        ]
        assert (summary.parameters.tensors, summary.parameters.nbytes) == (1, 7)


def local_class() -> torch.Tensor:
    class Local(Scaled):
        pass

    return Local(torch.ones(2, dtype=torch.int8), torch.tensor(1.0), {})


class Ways(Flag):
    UP = 1
    DOWN = 2


@dataclass
class Computed:
    once: int = 1
    twice: int = field(default=2, init=False)


def with_more() -> Config:
    config = Config(Granularity(0), torch.Size([]))
    config.more = 1  # type: ignore[attr-defined]
    return config


TWO = torch.ones(1), torch.ones(1)


def out_of_range() -> torch.Tensor:
    indices = torch.tensor([[7]])
    with torch.sparse.check_sparse_tensor_invariants(False):
        return torch.sparse_coo_tensor(indices, torch.ones(1), (2,), check_invariants=False)


REFUSED: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "fake": (
        lambda: torch._subclasses.FakeTensorMode().from_tensor(torch.ones(2)),
        "a fake tensor has no memory to store",
    ),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 3, torch.quint8), "quantized .* int_repr"),
    "quantized by channel": (
        lambda: torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8),
        "quantized .* int_repr",
    ),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested tensor"),
    "mkldnn": (lambda: torch.ones(2, 2).to_mkldnn(), "layout _mkldnn"),
    "zeros without memory": (lambda: torch._efficientzerotensor(3), "without memory .* clone"),
    "class that is no wrapper": (lambda: torch.ones(2).as_subclass(type("Odd", (torch.Tensor,), {})), "type Odd"),
    "class in a function": (local_class, "Local is not in .* top of a module"),
    "context of objects": (lambda: Scaled(torch.ones(1), torch.ones(1), {"note": object()}), "type object"),
    "context of several members": (lambda: Scaled(*TWO, {"way": Ways.UP | Ways.DOWN}), "no single member of Ways"),
    "context of a local class": (lambda: Scaled(*TWO, {"way": Enum("Local", "UP").UP}), "class Local is not in"),
    "context of what is computed": (lambda: Scaled(*TWO, {"by": Computed()}), "Computed.twice is no argument of its"),
    "context of what was set": (lambda: Scaled(*TWO, {"by": with_more()}), "Config.more is no argument of its"),
    "index out of range": (out_of_range, "invalid sparse tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")  # torch's own, that quantized and nested tensors are prototypes
def test_what_cannot_be_stored_is_refused_with_the_reason(name: str, path: Path) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(UnsupportedError, match=rf"{reason}.*"):
        exporter.save(program_with({"weight": make()}), path)
    assert not path.exists()


class TestArguments:
    def test_of_every_type_survive(self, path: Path) -> None:
        class Model(nn.Module):
            def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
                return [torch.empty(1, dtype=dtype) for dtype in kinds] + [
                    torch.full((2,), complex(math.nan, -math.inf)),
                    torch.full((2,), -math.inf),
                    torch.full((2,), math.nan),
                    torch.full((2,), -0.0),
                    *(torch.empty_like(x, memory_format=each) for each in formats),
                    torch.empty(2, 2, layout=torch.sparse_coo),
                    torch.empty(2, 2, layout=torch.sparse_csr),
                    torch.zeros(2, device="cpu", pin_memory=False, layout=torch.strided),
                    x.to_sparse(),
                ]

        kinds = [getattr(torch, name) for name in CARRIERS if hasattr(torch, name)]
        formats = [torch.preserve_format, torch.contiguous_format, torch.channels_last]
        for capture in (torch.export.export, exporter.capture):
            program = capture(Model(), (torch.ones(1, 2, 3, 4),))
            exporter.save(program, path)
            for mine, saved in zip(load(path).graph.nodes, program.graph.nodes, strict=True):
                assert same((mine.args, mine.kwargs), (saved.args, saved.kwargs)), saved.format_node()
                if isinstance(saved.meta.get("val"), torch.Tensor):
                    assert_known_equal(mine.meta["val"], saved.meta["val"], saved.name)


class TestTies:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 6, bias=False)
            self.embedding = nn.Embedding(6, 4)
            self.embedding.weight = self.head.weight
            self.twin = nn.Parameter(self.head.weight.detach())
            self.frozen = nn.Linear(6, 6).requires_grad_(False)
            self.register_buffer("part", self.head.weight.detach()[1:3])

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.frozen(self.head(self.embedding(ids))) + self.twin.sum() * self.part.sum()

    @pytest.fixture
    def program(self) -> torch.export.ExportedProgram:
        torch.manual_seed(0)
        return exporter.capture(self.Tied(), (torch.tensor([1, 2]),))

    def test_are_one_object_and_others_only_share_memory(
        self, program: torch.export.ExportedProgram, path: Path
    ) -> None:
        exporter.save(program, path)
        state = load(path).state_dict
        assert list(state) == list(program.state_dict)
        assert state["head.weight"] is state["embedding.weight"]
        assert state["head.weight"] is not state["twin"]
        assert len({state[key].untyped_storage().data_ptr() for key in ("head.weight", "twin", "part")}) == 1

    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
    def test_a_loaded_program_is_trained_as_the_original(
        self, program: torch.export.ExportedProgram, optimizer: Any, path: Path
    ) -> None:
        exporter.save(program, path)
        modules = [program.module(), load(path).module(), loader.load_module(path)]
        for module in modules:
            step = optimizer([each for each in module.parameters() if each.requires_grad], lr=0.1)
            for _ in range(3):
                step.zero_grad()
                module(torch.tensor([1, 2])).square().sum().backward()
                step.step()
        expected, *trained = (dict(module.named_parameters()) for module in modules)
        for parameters in trained:
            assert {key: each.requires_grad for key, each in parameters.items()} == {
                key: each.requires_grad for key, each in expected.items()
            }
            assert all(torch.equal(parameters[key], expected[key]) for key in expected)
        assert not torch.equal(expected["head.weight"], load(path).state_dict["head.weight"])


def deep(levels: int) -> Any:
    return ["list", [deep(levels - 1)]] if levels else None


class TestClasses:
    @pytest.fixture
    def archive(self, path: Path) -> Path:
        exporter.save(program_with({"weight": scaled()}), path, examples=False)
        return path

    def test_are_used_only_if_the_caller_names_their_module(self, archive: Path) -> None:
        with pytest.raises(ClassError, match=rf"{HERE}.Scaled .*at tensors.weight.*allow_classes=\[\"{HERE}\"\]"):
            loader.load(archive)
        assert isinstance(loader.load(archive, allow_classes=["tests"]).state_dict["weight"], Scaled)
        assert loader.verify(archive, allow_classes=[HERE]).ok
        assert "allow_classes" in loader.verify(archive).checks[-1].detail

    @pytest.mark.parametrize(
        ("module", "name", "message"),
        [
            ("not_imported_at_all", "Scaled", "is not imported"),
            ("os", "system", "os.system is no class of wrapper tensors"),
            ("os", "path.join", "os.path.join is no class"),
            ("torch", "Tensor", "torch.Tensor is no class of wrapper"),
            ("torch.nn", "Linear", "torch.nn.Linear is no class of wrapper"),
        ],
    )
    def test_are_nothing_but_classes_of_wrapper_tensors(
        self, module: str, name: str, message: str, archive: Path, tmp_path: Path
    ) -> None:
        change = set_in("weight", "subclass", module=module, qualname=name)
        other = rewrite(archive, tmp_path / "other", change)
        with pytest.raises(ClassError, match=message):
            loader.load(other, allow_classes=["not_imported_at_all", "os", "torch"])

    def test_of_weights_are_computed_with_as_before(self, path: Path) -> None:
        """torch reads their inner tensors by an operator of its own, which needs no permission."""

        class Multiplies(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight: Any = nn.Parameter(scaled())

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.weight.data8 * self.weight.scale

        module, x = Multiplies(), torch.randn(3)
        for capture in (torch.export.export, exporter.capture):
            program = capture(module, (x,))
            exporter.save(program, path)
            assert "export.access_subclass_inner_tensor" in str(load(path).graph)
            for loaded in (load(path).module(), loader.load_module(path, allow_classes=[HERE])):
                assert torch.equal(loaded(x), module(x))

    @pytest.mark.parametrize(
        ("context", "error", "message"),
        [
            (["member", "builtins", "int", "x"], ClassError, r'builtins.int .*allow_classes=\["builtins"\]'),
            (["member", "os", "system", "x"], ClassError, "os.system is no enumeration"),
            (["member", HERE, "Config", "x"], ClassError, "Config is no enumeration"),
            (["member", HERE, "Mapping", "mro"], FormatError, "Mapping has no member 'mro'"),
            (["made", "os", "system", ["command"], ["true"]], ClassError, "os.system is no dataclass or named tuple"),
            (["made", HERE, "Mapping", ["value"], [1]], ClassError, "Mapping is no dataclass"),
            (["made", HERE, "Scaled", [], []], ClassError, "Scaled is no dataclass"),
            (["made", HERE, "Granularity", [], []], FormatError, "Granularity cannot be made of its fields: TypeError"),
            (["made", HERE, "Granularity", ["dim"], []], FormatError, "1 names for 0 fields"),
            (["made", HERE, "f()", [], []], FormatError, "name no class"),
            (["list", [["made", HERE, "Zero", ["a"], [deep(70)]]]], FormatError, "nested too deep"),
        ],
    )
    def test_of_contexts_are_admitted_ones_of_the_right_kind(
        self, context: Any, error: type[Exception], message: str, archive: Path, tmp_path: Path
    ) -> None:
        other = rewrite(archive, tmp_path / "other", set_in("weight", "subclass", context=context))
        with pytest.raises(error, match=message):
            load(other, allow_classes=[HERE, "os"])

    def test_come_with_contexts_alone(self, path: Path, tmp_path: Path) -> None:
        """Where a graph, a signature or a tree names one, it is refused even if the caller admits it."""
        exporter.save(exporter.capture(Plain(), (torch.ones(2),)), path)
        row = ["member", HERE, "Level", "LOW"]

        def in_graph(documents: Any, _: Any) -> None:
            documents["graph"]["arguments"][0] = row

        def in_tree(documents: Any, _: Any) -> None:
            documents["calls"]["entries"][0][1][3] = ["branch", 0, row, []]

        for change in (in_graph, in_tree):
            with pytest.raises(FormatError, match="a member outside of a wrapper subclass"):
                load(rewrite(path, tmp_path / "other", change))


Change = Callable[[Any, Any], None]


def set_in(name: str, part: str = "", **fields: Any) -> Change:
    """Set fields of a tensor in the manifest, or of the record of what it is made of."""

    def change(_documents: Any, manifest: Any) -> None:
        rows = manifest["tensors"]
        place = next(place for place, row in enumerate(rows) if row["name"] == name)
        if part:
            rows[place][part].update(fields)
        changed = rows[place] | ({} if part else fields)
        rows[place] = {key: changed[key] for key in Tensor.__struct_fields__ if key in changed}

    return change


def set_value(kind: str, place: int, value: Any) -> Change:
    """Set a field of a row in the table of values."""

    def change(documents: Any, _manifest: Any) -> None:
        row = next(each for each in documents["graph"]["values"] if each[0] == kind)
        row[place] = value

    return change


HOSTILE: dict[str, tuple[Change, str]] = {
    "a part that is not there": (set_in("coo", "sparse", parts=[0, 99]), "do not stand before"),
    "a part of itself": (set_in("wrapper", "subclass", parts=[{"key": "data8", "tensor": 11}]), "do not stand before"),
    "a part at -1": (set_in("coo", "sparse", parts=[0, -1]), "do not stand before"),
    "too few parts": (set_in("coo", "sparse", parts=[0]), "malformed sparse"),
    "a layout that is not sparse": (set_in("coo", "sparse", layout="strided"), "malformed sparse"),
    "an unknown layout": (set_in("coo", "sparse", layout="system"), "malformed sparse"),
    "sparse with strides": (set_in("coo", strides=[1, 1]), "malformed sparse"),
    "sparse and in a storage": (set_in("coo", storage=0), "a view of a storage"),
    "made of one tensor twice": (set_in("coo", "sparse", parts=[0, 0]), "twice of one"),
    "a part of two tensors": (set_in("csr", "sparse", parts=[2, 6, 7]), "part of another"),
    "sparse and conjugate": (set_in("coo", conjugate=True), "a view of a storage"),
    "an index out of range": (set_in("coo", shape=[2, 2]), "not a valid sparse tensor"),
    "more dimensions than indices": (set_in("coo", shape=[4, 4, 4]), "not a valid sparse tensor"),
    "csr of another shape": (set_in("csr", shape=[2, 4]), "not a valid sparse tensor"),
    "csr taken for csc": (set_in("csr", "sparse", layout="sparse_csc", parts=[6, 5, 7]), "not a valid sparse tensor"),
    "of another type than its values": (set_in("coo", dtype="float64"), "a tensor of torch.float32"),
    "no storage": (set_in("conjugate", storage=-1), "storage -1 of"),
    "a conjugate that is not complex": (set_in("__parts__/wrapper/scale", conjugate=True), "conjugate of float32"),
    "a negative under its own name": (set_in("__parts__/wrapper/scale", negative=True), "tensor that is not it"),
    "tied to itself": (set_in("second", tied=1), "does not stand before"),
    "tied to what is not there": (set_in("second", tied=-1), "does not stand before"),
    "tied to another shape": (set_in("second", shape=[1]), "'first', which differs"),
    "tied to another tensor": (set_in("conjugate", tied=0), "which differs"),
    "a wrapper of nothing": (set_in("wrapper", "subclass", parts=[]), "wrapper of no tensors"),
    "two parts of one name": (
        set_in("wrapper", "subclass", parts=[{"key": "scale", "tensor": 0}] * 2),
        "two of one name",
    ),
    "a part that is no attribute": (
        set_in("wrapper", "subclass", parts=[{"key": "a b", "tensor": 0}]),
        "not an identifier",
    ),
    "a missing part": (set_in("wrapper", "subclass", parts=[{"key": "scale", "tensor": 0}]), "cannot be made"),
    "a class that is no name": (set_in("wrapper", "subclass", qualname="f()"), "name no class"),
    "a context that is too deep": (set_in("wrapper", "subclass", context=deep(70)), "nested too deep"),
    "a value of an unknown layout": (set_value("sparse", 1, "strided"), "malformed sparse value"),
    "a value with a block": (set_value("sparse", 5, [2, 2]), "malformed sparse value"),
    "a value with a negative size": (set_value("sparse", 3, [-4, 4]), "out of range"),
    "a value too dense": (set_value("sparse", 4, 9), "out of range"),
    "a value of an unknown type": (set_value("sparse", 2, "float17"), "has no 'float17'"),
    "a value of odd indices": (set_value("sparse", 6, "float32"), "malformed sparse value"),
    "a wrapper of a later value": (set_value("subclass", 6, 99), "value 99 of"),
    "a wrapper of too few values": (set_value("subclass", 4, [0]), "malformed wrapper"),
    "a value with a context that is too deep": (set_value("subclass", 5, deep(70)), "nested too deep"),
    "a wrapper that looks like a number": (set_value("subclass", 6, 1), "malformed wrapper"),
}


@pytest.fixture(scope="module")
def archive_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("coo", GRID.to_sparse())
            self.register_buffer("csr", GRID.to_sparse_csr())
            self.register_buffer("wrapper", scaled())
            self.register_buffer("conjugate", complex_numbers().conj())
            self.first = self.second = nn.Parameter(torch.ones(2))

        def forward(self, number: int, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    path = tmp_path_factory.mktemp("hostile") / "model.program.safetensors"
    exporter.save(torch.export.export(Model(), (7, torch.ones(2))), path)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str, archive_of_all: Path, tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    with pytest.raises(FormatError, match=message):
        load(rewrite(archive_of_all, tmp_path / "other", change))
