"""What typed documents cost: decode a graph with msgspec, and with msgpack without and with a check of its types.

    python benchmarks/documents.py [NODES]

Prints medians as ratios to plain msgpack in the same run, and the sizes. The numbers behind docs/decisions.md.
"""

import statistics
import sys
import time

import msgpack
import msgspec

from schema import graph
from schema.codec import compress, encode
from schema.literals import Device


def make(nodes: int) -> graph.ProgramGraph:
    """A graph shaped like a transformer's: every node takes the one before and one far back."""
    places = range(1, nodes)
    columns = graph.Graph(
        names=["x", *(f"op_{place}" for place in places)],
        targets=[0, *(2 for _ in places)],
        arities=[0, *(3 for _ in places)],
        operands=[operand for place in places for operand in (-1, -min(place, 37), place % 50)],
        keywords=[0] * nodes,
        values=[place % 90 for place in range(nodes)],
        modules=[0, *(1 + place % 60 for place in places)],
        functions=[-1, *(0 for _ in places)],
    )
    values = [graph.TensorValue("float32", [8, size], [size, 1], Device("cpu", None)) for size in range(90)]
    frames = [graph.ModuleFrame(max(0, i - 1), f"k{i}", f"layers.{i}", "pkg.Layer") for i in range(60)]
    return graph.ProgramGraph(
        dialect="TRAINING",
        graphs=[columns],
        targets=["node::placeholder", "node::output", "aten::add.Tensor"],
        arguments=list(range(50)),
        keywords=[graph.Keywords([], [])],
        values=values,
        frames=frames,
        functions=[("add_1", "method_descriptor.add")],
    )


def plain(data: bytes) -> object:
    return msgpack.unpackb(data)


def checked(data: bytes) -> object:
    """The same checks by hand, as a library without schemas would have them."""
    document = msgpack.unpackb(data)
    columns = document["graphs"][0]
    kinds = {name: str if name == "names" else int for name in columns}
    if not all(type(entry) is kinds[name] for name, column in columns.items() for entry in column):
        raise TypeError
    return document


def typed(data: bytes) -> object:
    return msgspec.msgpack.decode(data, type=graph.ProgramGraph)


def canonical(data: bytes) -> object:
    document = msgspec.msgpack.decode(data, type=graph.ProgramGraph)
    assert encode(document) == data
    return document


def main(nodes: int = 10_000, rounds: int = 15) -> None:
    data = encode(make(nodes))
    ways = {"msgpack, no check": plain, "msgpack, checked by hand": checked, "msgspec, typed": typed}
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
