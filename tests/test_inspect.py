"""What is said of an archive without torch: the summary, the graph as text, and the inputs that people write."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from blake3 import blake3

import archive
from archive.graph_text import graph_lines
from archive.input_specs import (
    DynamicDim,
    InputSpec,
    Plain,
    StoredTensor,
    TensorSpec,
    example_sizes,
    parse_all,
    parse_dynamic,
    parse_input,
)
from archive.render import columns, operator_lines, summary_lines, tensor_lines
from archive.text import bytes_text, count_text, expression_texts, literal_text, printable, seconds_text
from archive.writing import Blob, bytes_blob, write_archive
from schema import literals
from schema.calls import Calls
from schema.codec import compress, encode
from schema.constraints import Apply, Constraints, Infinity, Integer, Rational, Real, Symbol, SymbolReference, Truth
from schema.errors import FormatError, UsageError
from schema.graph import (
    ABSENT,
    DictOf,
    Graph,
    Keywords,
    ListOf,
    ListValue,
    LiteralValue,
    ProgramGraph,
    SliceOf,
    Subgraph,
    Symbolic,
    TensorValue,
    TupleOf,
    TupleValue,
)
from schema.manifest import (
    Dimension,
    ExampleValue,
    Manifest,
    Method,
    NamedTensor,
    OperatorUse,
    Port,
    Producer,
    Section,
    Storage,
    Tensor,
)
from schema.names import section_name
from schema.signature import Signature
from schema.version import FORMAT_VERSION

if TYPE_CHECKING:
    from pathlib import Path

CPU = literals.Device("cpu", None)


def symbol(name: str) -> Symbol:
    return Symbol(name=name, assumptions=[], interval=None, hint=None, sources=[])


CONSTRAINTS = Constraints(
    symbols=[symbol("batch")],
    expressions=[SymbolReference(0), Integer(10), Apply("Mul", [0, 1])],
)
SIZE = Symbolic(kind="int", expression=0, hint=2)

TARGETS = [
    "node::placeholder",
    "aten::linear.default",
    "higher_order::cond",
    "python::operator.getitem",
    "node::get_attr",
    "node::output",
    "aten::add.Tensor",
    "aten::cat.default",
    "python::math.ceil",
]
PLACEHOLDER, LINEAR, COND, GETITEM, GET_ATTR, OUTPUT, ADD, CAT, CEIL = range(len(TARGETS))


def graph(*nodes: tuple[int, str, list[int], int, int], **more: Any) -> Graph:
    """A graph of nodes, each with its target, name, operands, keyword arguments and value."""
    targets, names, operands, keywords, values = ([node[i] for node in nodes] for i in range(5))
    return Graph(
        names=names,
        targets=targets,
        arities=[len(each) for each in operands],
        operands=[operand for each in operands for operand in each],
        keywords=keywords,
        values=values,
        modules=[ABSENT] * len(nodes),
        functions=[ABSENT] * len(nodes),
        **more,
    )


BRANCH = graph(
    (PLACEHOLDER, "a", [], 0, 1),
    (ADD, "add", [-1, 0], 0, 1),
    (OUTPUT, "output", [6], 0, ABSENT),
)
GRAPH = ProgramGraph(
    dialect="TRAINING",
    targets=TARGETS,
    arguments=[
        *(1, "true_graph_0", None, literals.DType("float32"), 0, "key"),
        *(TupleOf([-1]), TupleOf([-2]), ListOf([-1, -4]), SliceOf((4, 0, 2)), DictOf([5], [-1])),
    ],
    keywords=[Keywords([], []), Keywords(["dtype"], [3])],
    values=[
        TensorValue("float32", [SIZE, 3], [3, 1], CPU),
        TensorValue("float32", [SIZE, 10], [10, 1], literals.Device("cuda", 1)),
        LiteralValue(2),
        TupleValue([1]),
        ListValue([0, 1]),
        Symbolic(kind="int", expression=2, hint=None),
    ],
    graphs=[
        graph(
            (PLACEHOLDER, "x", [], 0, 0),
            (PLACEHOLDER, "mask", [], 0, 2),
            (LINEAR, "linear", [-2, 2], 1, 1),
            (GET_ATTR, "true_graph_0", [1], 0, ABSENT),
            (COND, "cond", [-2, -1, -1, 7], 0, 3),
            (GETITEM, "getitem", [-1, 4], 0, 1),
            (CAT, "cat", [8, 4], 0, 4),
            (GETITEM, "getitem_1", [-1, 9], 0, ABSENT),
            (CEIL, "ceil", [-1], 0, 5),
            (OUTPUT, "output", [10], 0, ABSENT),
            subgraphs=[Subgraph("true_graph_0", 1)],
        ),
        BRANCH,
    ],
)
GRAPH_TEXT = """\
forward(
    x: f32[batch, 3],
    mask: None,
):
    linear: f32[batch, 10] cuda:1 = aten.linear.default(x, None, dtype=torch.float32)
    true_graph_0 = self.true_graph_0
    cond: (f32[batch, 10] cuda:1,) = cond(linear, true_graph_0, true_graph_0, (linear,))
    getitem: f32[batch, 10] cuda:1 = cond[0]
    cat: [f32[batch, 3], f32[batch, 10] cuda:1] = aten.cat.default([getitem, linear], 0)
    getitem_1 = cat[0:1:]
    ceil: int(batch*10) = math.ceil(getitem_1)
    return {'key': ceil}
    true_graph_0(
        a: f32[batch, 10] cuda:1,
    ):
        add: f32[batch, 10] cuda:1 = aten.add.Tensor(a, 1)
        return (add,)"""


def tensor(name: str, storage: int, shape: list[int], **more: object) -> Tensor:
    return msgspec.structs.replace(Tensor(name=name, dtype="float32", shape=shape, storage=storage), **more)


def parameter(name: str, storage: int, shape: list[int], **more: object) -> Tensor:
    return tensor(name, storage, shape, parameter=True, requires_grad=True, **more)


TENSORS = [
    parameter("encoder.layer.weight", 0, [4, 2]),
    parameter("encoder.layer.bias", 1, [4]),
    parameter("decoder.weight", 0, [4, 2]),
    parameter("decoder.transposed", 0, [2, 4], strides=[1, 2]),
    msgspec.structs.replace(parameter("frozen", 2, [3], dtype="bfloat16"), requires_grad=False),
    tensor("norm.mean", 3, [4]),
    tensor("__constants__/norm.eps", 4, []),
    tensor("__program__/forward/example/0", 5, [2]),
]
STORED = {
    "encoder.layer.weight": ("F32", 32),
    "encoder.layer.bias": ("F32", 16),
    "frozen": ("BF16", 6),
    "norm.mean": ("F32", 16),
    "__constants__/norm.eps": ("F32", 4),
    "__program__/forward/example/0": ("F32", 8),
}
BATCH = Dimension(symbol="batch", lower=1, upper=64)


def write(path: Path, section: ProgramGraph = GRAPH, constraints: Constraints = CONSTRAINTS) -> Path:
    documents = {
        "graph": section,
        "signature": Signature(inputs=[], outputs=[]),
        "constraints": constraints,
        "calls": Calls(entries=[]),
    }
    sections = [bytes_blob(section_name("forward", name), compress(encode(each))) for name, each in documents.items()]
    shapes = {each.name: tuple(each.shape) for each in TENSORS}
    blobs = [
        Blob(name, code, shapes[name], *bytes_blob(name, bytes(size))[3:]) for name, (code, size) in STORED.items()
    ]
    method = Method(
        name="forward",
        sections=[
            Section(
                name=name,
                nbytes=blob.nbytes,
                decoded_nbytes=len(encode(each)),
                sha256=hashlib.sha256(blob.owner).digest(),
            )
            for (name, each), blob in zip(documents.items(), sections, strict=True)
        ],
        inputs=[
            Port(name="x", kind="tensor", dtype="float32", shape=[BATCH, 3]),
            Port(name="n", kind="int", shape=[Dimension(symbol="s0", lower=2)]),
            Port(name="mask", kind="NoneType"),
            Port(name="mode", kind="str", value="fast"),
        ],
        outputs=[Port(name="output.logits", kind="tensor", dtype="float32", shape=[Dimension(symbol="2*batch"), 10])],
        operators=[
            OperatorUse(name="aten::add.Tensor", count=1, schema="add(Tensor a) -> Tensor"),
            OperatorUse(name="aten::linear.default", count=3, schema="linear(Tensor a) -> Tensor"),
        ],
        nodes=13,
        types=["transformers.Output"],
        state=[NamedTensor(key=each.name, tensor=place) for place, each in enumerate(TENSORS[:6])],
        constants=[NamedTensor(key="norm.eps", tensor=6)],
        example=[ExampleValue(tensor=7)],
    )
    manifest = Manifest(
        format=FORMAT_VERSION,
        producer=Producer(name="a test", version="0", torch="2.13.0"),
        methods=[method],
        storages=[
            Storage(name=name, nbytes=size, blake3=blake3(bytes(size)).digest()) for name, (_, size) in STORED.items()
        ],
        tensors=TENSORS,
    )
    write_archive(path, blobs + sections, lambda _: encode(manifest))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "model.program.safetensors")


class TestSummary:
    def test_it_says_who_wrote_what(self, path: Path) -> None:
        summary = archive.inspect(path)
        assert (summary.path, summary.nbytes, summary.format) == (
            str(path),
            path.stat().st_size,
            ".".join(map(str, FORMAT_VERSION)),
        )
        assert msgspec.structs.asdict(summary.producer) == {"name": "a test", "version": "0", "torch": "2.13.0"}

    def test_inputs_and_outputs_have_types_shapes_and_ranges(self, path: Path) -> None:
        (method,) = archive.inspect(path).methods
        x, n, mask, mode = method.inputs
        assert (x.dtype, x.shape, x.ranges) == ("float32", ["batch", 3], {"batch": (1, 64)})
        assert (n.kind, n.ranges, n.value) == ("int", {"s0": (2, None)}, None)
        assert (mask.value, mode.value) == ("None", "'fast'")
        (logits,) = method.outputs
        assert (logits.name, logits.shape, logits.ranges) == ("output.logits", ["2*batch", 10], {})

    def test_tied_tensors_count_once_and_are_said_to_share(self, path: Path) -> None:
        summary = archive.inspect(path)
        assert summary.shared == [["encoder.layer.weight", "decoder.weight", "decoder.transposed"]]
        assert (summary.parameters.tensors, summary.parameters.elements) == (4, 8 + 4 + 8 + 3)
        assert summary.trainable.elements == 20
        assert {each.name for each in summary.tensors if each.view} == {"decoder.transposed"}

    def test_sizes_by_type_and_module(self, path: Path) -> None:
        summary = archive.inspect(path, depth=1)
        assert {dtype: amount.nbytes for dtype, amount in summary.dtypes.items()} == {"bfloat16": 6, "float32": 108}
        assert {module: amount.elements for module, amount in summary.modules.items()} == {
            "": 28,
            "encoder": 12,
            "decoder": 8,
            "norm": 5,
        }
        assert "encoder.layer" in archive.inspect(path, depth=2).modules

    def test_roles(self, path: Path) -> None:
        roles = {each.name: each.role for each in archive.inspect(path).tensors}
        assert roles["frozen"] == "parameter"
        assert roles["norm.mean"] == "buffer"
        assert roles["__constants__/norm.eps"] == "constant"
        assert roles["__program__/forward/example/0"] == "example"

    def test_it_is_plain_data_with_every_field(self, path: Path) -> None:
        plain = archive.inspect(path).to_dict()
        assert json.loads(json.dumps(plain))["methods"][0]["inputs"][0] == {
            "name": "x",
            "kind": "tensor",
            "dtype": "float32",
            "shape": ["batch", 3],
            "ranges": {"batch": [1, 64]},
            "value": None,
        }

    def test_its_text_holds_the_contract(self, path: Path) -> None:
        text = "\n".join(summary_lines(archive.inspect(path)))
        for part in (
            "written by a test 0 with torch 2.13.0",
            "parameters: 23 in 4 tensors, 86 B; 20 trainable",
            "x     f32[batch, 3]  batch in 1..64",
            "n     int s0         s0 in 2..",
            "mask  always None",
            "13 nodes, 2 operators",
            "output.logits  f32[2*batch, 10]",
            "types: transformers.Output",
            "shared memory: encoder.layer.weight, decoder.weight",
        ):
            assert part in text
        assert ["modules", "elements", "bytes"] in [line.split() for line in text.splitlines()]

    def test_operators_come_most_frequent_first(self, path: Path) -> None:
        lines = list(operator_lines(archive.inspect(path).methods[0]))
        assert lines[0] == "3  aten::linear.default  linear(Tensor a) -> Tensor"

    def test_tensors_say_what_they_are_views_of(self, path: Path) -> None:
        lines = {line.split()[0]: line for line in tensor_lines(archive.inspect(path))}
        assert lines["decoder.weight"].endswith("f32[4, 2]  32 B  view of encoder.layer.weight")


class TestGraphText:
    def test_every_kind_of_statement_and_value(self, path: Path) -> None:
        with archive.open_archive(path) as file:
            assert "\n".join(graph_lines(file, "forward")) == GRAPH_TEXT

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"graphs": []}, "place 0 in a table of 0"),
            ({"targets": []}, "target . of 0"),
            ({"values": [TupleValue([0])]}, "value 0 of 0"),
            ({"values": [LiteralValue(-1)]}, "literal -1 of 11"),
            ({"values": [LiteralValue(7)]}, "argument 7 is no literal"),
            ({"graphs": [graph((ADD, "a", [-1], 0, ABSENT))]}, "place -1 in a table of 0"),
            ({"graphs": [graph((ADD, "a", [99], 0, ABSENT))]}, "argument 99 of 11"),
            ({"graphs": [graph((ADD, "a", [], 2, ABSENT))]}, "keywords 2 of 2"),
            ({"graphs": [graph((GET_ATTR, "a", [], 0, ABSENT))]}, "one name is due"),
            ({"graphs": [graph(subgraphs=[Subgraph("g", 7)])]}, "place 7 in a table of 1"),
        ],
    )
    def test_places_that_are_not_there_are_refused(
        self, tmp_path: Path, changes: dict[str, object], message: str
    ) -> None:
        path = write(tmp_path / "x", msgspec.structs.replace(GRAPH, **changes))
        with archive.open_archive(path) as file, pytest.raises(FormatError, match=message):
            list(graph_lines(file, "forward"))

    def test_graphs_that_reach_themselves_do_not_go_on_forever(self, tmp_path: Path) -> None:
        graphs = [graph(subgraphs=[Subgraph("a", 1), Subgraph("b", 1)])] * 2
        path = write(tmp_path / "x", msgspec.structs.replace(GRAPH, graphs=graphs))
        with archive.open_archive(path) as file:
            opened = [line.strip() for line in graph_lines(file, "forward") if line.endswith("(")]
        assert opened == ["forward(", "a(", "b("]

    def test_values_that_double_at_every_step_stay_short(self, tmp_path: Path) -> None:
        doubling = [GRAPH.values[0], *(TupleValue([place, place]) for place in range(20))]
        graphs = [graph((PLACEHOLDER, "x", [], 0, 20), (OUTPUT, "output", [-1], 0, ABSENT))]
        path = write(tmp_path / "x", msgspec.structs.replace(GRAPH, values=doubling, graphs=graphs))
        with archive.open_archive(path) as file:
            assert max(map(len, graph_lines(file, "forward"))) < 10_000


class TestText:
    @pytest.mark.parametrize(
        ("expressions", "text"),
        [
            ([SymbolReference(0), Integer(1), Apply("Add", [0, 1]), Apply("Mul", [2, 0])], "(s0 + 1)*s0"),
            ([SymbolReference(0), Integer(2), Apply("Mul", [0, 1]), Apply("Add", [2, 0, 1])], "s0*2 + s0 + 2"),
            ([SymbolReference(0), Apply("FloorDiv", [0, 0]), Apply("FloorDiv", [0, 1])], "s0//(s0//s0)"),
            ([SymbolReference(0), Apply("Pow", [0, 0]), Apply("Pow", [1, 0])], "(s0**s0)**s0"),
            ([SymbolReference(0), Rational(1, 2), Apply("Mul", [1, 0])], "1/2*s0"),
            ([SymbolReference(0), Integer(3), Apply("Equality", [0, 1]), Apply("Not", [2])], "Not(s0 == 3)"),
            ([Real(0.5), Apply("OpaqueUnaryFn_sqrt", [0])], "sqrt(0.5)"),
            ([Truth(True)], "True"),
            ([Infinity(negative=True, integer=True), Infinity(False, False), Apply("Max", [0, 1])], "Max(-oo, oo)"),
        ],
    )
    def test_expressions(self, expressions: list[object], text: str) -> None:
        assert expression_texts(Constraints(symbols=[symbol("s0")], expressions=expressions))[-1] == text

    @pytest.mark.parametrize("wrong", [Apply("Add", [0]), Apply("Add", [5]), SymbolReference(1), SymbolReference(-1)])
    def test_expressions_of_what_is_not_there_are_refused(self, wrong: object) -> None:
        with pytest.raises(FormatError, match=r"in a table of .* \(at constraints.expressions.0\)"):
            expression_texts(Constraints(symbols=[symbol("s0")], expressions=[wrong]))

    def test_expressions_that_double_at_every_step_stay_short(self) -> None:
        doubling = [SymbolReference(0), *(Apply("Add", [place, place]) for place in range(200))]
        texts = expression_texts(Constraints(symbols=[symbol("s0")], expressions=doubling))
        assert max(map(len, texts)) < 10_000

    @pytest.mark.parametrize(
        ("literal", "text"),
        [
            (None, "None"),
            (True, "True"),
            (1.5, "1.5"),
            ("a'b", '"a\'b"'),
            (literals.Complex(1.0, -2.0), "(1-2j)"),
            (literals.Device("cuda", 0), "device('cuda:0')"),
            (literals.Layout("strided"), "torch.strided"),
            (literals.MemoryFormat("channels_last"), "torch.channels_last"),
            (literals.OperatorName("aten::add.Tensor"), "aten.add.Tensor"),
            (literals.Dots(), "..."),
            (literals.Items([1, literals.Tuple([2])]), "[1, (2,)]"),
            (literals.Tuple([]), "()"),
            (literals.Entries(["a"], [literals.Slice(1, None, 2)]), "{'a': slice(1, None, 2)}"),
        ],
    )
    def test_literals(self, literal: literals.Literal, text: str) -> None:
        assert literal_text(literal) == text

    def test_literals_nested_too_deeply_are_refused(self) -> None:
        deep: literals.Literal = None
        for _ in range(5000):
            deep = literals.Items([deep])
        with pytest.raises(FormatError, match="nested too deeply"):
            literal_text(deep)

    def test_sizes_and_times_in_fitting_units(self) -> None:
        assert [bytes_text(size) for size in (0, 999, 1000, 2_469_869_017)] == ["0 B", "999 B", "1 kB", "2.47 GB"]
        assert [seconds_text(seconds) for seconds in (0.0012, 2.34)] == ["1 ms", "2.3 s"]

    def test_one_of_something_is_not_several(self) -> None:
        assert [count_text(number, "node") for number in (0, 1, 2000)] == ["0 nodes", "1 node", "2,000 nodes"]

    def test_names_cannot_steer_a_terminal(self) -> None:
        assert printable("a\x1b[2J\nb\u202e é") == "a\\x1b[2J\\nb\\u202e é"
        assert list(columns([["\x1b", "b"]])) == ["\\x1b  b"]

    def test_columns_of_nothing(self) -> None:
        assert list(columns([])) == []


class TestInputSpecs:
    @pytest.mark.parametrize(
        ("text", "source"),
        [
            ("x=f32[batch,3,224,224]", TensorSpec("float32", ("batch", 3, 224, 224), "rand")),
            ("x = bf16[ 2 , 3 ]", TensorSpec("bfloat16", (2, 3), "rand")),
            ("x=i64[1,16]", TensorSpec("int64", (1, 16), "ones")),
            ("x=i64[1,16]=zeros", TensorSpec("int64", (1, 16), "zeros")),
            ("x=bool[]", TensorSpec("bool", (), "zeros")),
            ("x=f32[0]", TensorSpec("float32", (0,), "rand")),
            ("x=@a/b.safetensors:key", StoredTensor("a/b.safetensors", "key")),
            ("x=3", Plain(3)),
            ("x=-0.5", Plain(-0.5)),
            ("x=true", Plain(True)),
            ("x=False", Plain(False)),
            ("x=none", Plain(None)),
            ('x="te=xt"', Plain("te=xt")),
            ("x=''", Plain("")),
        ],
    )
    def test_inputs_that_people_write(self, text: str, source: object) -> None:
        assert parse_input(text) == InputSpec("x", source)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("f32[2]", "does not begin with a name and `=`"),
            ("2x=3", "does not begin with a name"),
            ("class=3", "does not begin with a name"),
            ("x=", "is not understood; write NAME=f32"),
            ("x=text", "is not understood"),
            ("x=f33[2]", "unknown dtype 'f33'; use f16"),
            ("x=f32[2", "is not understood"),
            ("x=f32[2,]", "'' is no size"),
            ("x=f32[-1]", "'-1' is no size"),
            ("x=f32[2.5]", "'2.5' is no size"),
            ("x=f32[99999999999999999999]", "is no size"),
            ("x=f32[2]=twos", "unknown fill 'twos'; use zeros, ones, rand"),
            ("x=@file", "does not name a tensor"),
        ],
    )
    def test_inputs_that_are_wrong_say_what_is_expected(self, text: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            parse_input(text)

    @pytest.mark.parametrize(
        ("text", "dim"),
        [
            ("batch", DynamicDim("batch", None, None)),
            ("batch=1..64", DynamicDim("batch", 1, 64)),
            ("batch=..64", DynamicDim("batch", None, 64)),
            ("batch=2..", DynamicDim("batch", 2, None)),
        ],
    )
    def test_dynamic_dimensions(self, text: str, dim: DynamicDim) -> None:
        assert parse_dynamic(text) == dim

    @pytest.mark.parametrize("text", ["", "1..2", "b=", "b=1", "b=1...2", "b=-1..2", "b=4..2", "b=a..b", "b=0..1"])
    def test_dynamic_dimensions_that_are_wrong(self, text: str) -> None:
        with pytest.raises(UsageError, match="--dynamic"):
            parse_dynamic(text)

    @pytest.mark.parametrize("text", ["b=0..0", "b=..0", "b=1..1", "b=7..7"])
    def test_a_range_of_one_size_is_written_as_a_number(self, text: str) -> None:
        with pytest.raises(UsageError, match=f"leaves only one size; write {text[-1]} in the input itself"):
            parse_dynamic(text)

    def test_names_must_fit_together(self) -> None:
        with pytest.raises(UsageError, match=r"dimension 'b' has no size; say `--dynamic b=1..64`"):
            parse_all(["x=f32[b]"], [])
        with pytest.raises(UsageError, match="--dynamic c: no input has this dimension"):
            parse_all(["x=f32[b]"], ["b", "c"])
        with pytest.raises(UsageError, match="--input x is given twice"):
            parse_all(["x=1", "x=2"], [])

    def test_example_sizes_are_in_range_and_differ(self) -> None:
        specs, dims = parse_all(
            ["x=f32[batch,3,seq]", "y=f32[two,few,huge]"],
            ["batch=1..64", "seq", "two=1..2", "few=2..3", "huge=1000.."],
        )
        sizes = example_sizes(specs, dims)
        assert sizes == {"batch": 2, "seq": 4, "two": 2, "few": 2, "huge": 1000}
