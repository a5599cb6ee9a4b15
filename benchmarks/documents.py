"""What typed documents cost: decode a graph with msgspec, and with msgpack without and with a check of its types.

    python benchmarks/documents.py [NODES]

Prints medians as ratios to plain msgpack in the same run, and the sizes. The numbers behind docs/decisions.md.
"""

import dataclasses
import statistics
import sys
import time
import typing

import msgpack
import msgspec

from schema import graph
from schema.codec import compress, encode
from schema.literals import Device


def make(nodes: int) -> graph.ProgramGraph:
    """A graph shaped like a transformer's: every node takes the one before and one far back."""
    rows = [
        graph.Node(2, f"op_{index}", [-1, -min(index, 37), index % 50], {}, index % 90, 1 + index % 60, 0)
        for index in range(1, nodes)
    ]
    rows.insert(0, graph.Node(0, "x", [], {}, 0, 0, -1))
    values = [graph.TensorValue("float32", [8, size], [size, 1], Device("cpu", None)) for size in range(90)]
    frames = [graph.ModuleFrame(max(0, i - 1), f"k{i}", f"layers.{i}", "pkg.Layer") for i in range(60)]
    return graph.ProgramGraph(
        dialect="TRAINING",
        graphs=[graph.Graph(rows)],
        targets=["node::placeholder", "node::output", "aten::add.Tensor"],
        literals=list(range(50)),
        values=values,
        frames=frames,
        functions=[("add_1", "method_descriptor.add")],
    )


@dataclasses.dataclass(slots=True)
class PlainNode:
    """The same record by hand, as a library without schemas would have it."""

    target: int
    name: str
    args: list[typing.Any]
    kwargs: dict[str, typing.Any]
    value: int
    modules: int
    function: int
    custom: int
    bindings: int

    def __post_init__(self):
        numbers = (self.target, self.value, self.modules, self.function, self.custom, self.bindings)
        if not all(type(number) is int for number in numbers) or type(self.name) is not str:
            raise TypeError
        if type(self.args) is not list or not all(type(arg) in (int, list) for arg in self.args):
            raise TypeError
        if type(self.kwargs) is not dict:
            raise TypeError


def plain(data: bytes) -> object:
    return msgpack.unpackb(data)


def checked(data: bytes) -> object:
    return [PlainNode(*row) for row in msgpack.unpackb(data)["graphs"][0][0]]


def typed(data: bytes) -> object:
    return msgspec.msgpack.decode(data, type=graph.ProgramGraph)


def canonical(data: bytes) -> object:
    document = msgspec.msgpack.decode(data, type=graph.ProgramGraph)
    assert encode(document) == data
    return document


def main(nodes: int = 10_000, rounds: int = 15) -> None:
    data = encode(make(nodes))
    ways = {"msgpack, no check": plain, "msgpack, dataclasses by hand": checked, "msgspec, typed": typed}
    ways["msgspec, typed and canonical"] = canonical
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, decode in ways.items():
            start = time.perf_counter()
            decode(data)
            times[name].append(time.perf_counter() - start)
    base = statistics.median(times["msgpack, no check"])
    print(f"{nodes} nodes: {len(data):,} bytes, {len(compress(data)):,} in a zstd frame")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:30} {median * 1e3:7.2f} ms  {median / base:5.2f} x  ({median / nodes * 1e6:.2f} us a node)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
