"""Summaries, reports and outputs as lines of text; the same in a terminal and in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive.text import bytes_text, count_text, printable, seconds_text, tensor_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from archive.summary import Amount, Method, Port, Summary

_FEW_OPERATORS = 8
_PAGE = "  "
_OUTCOMES = {True: "ok", False: "FAILED", None: "unknown"}


def columns(rows: Iterable[Sequence[object]], indent: str = "") -> Iterator[str]:
    """Rows in columns, each as wide as its widest cell."""
    table = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def summary_lines(summary: Summary) -> Iterator[str]:
    """What ``archive inspect`` says of an archive."""
    yield f"{printable(summary.path)}: {bytes_text(summary.nbytes)}, format {summary.format}"
    producer = summary.producer
    yield printable(f"written by {producer.name} {producer.version} with torch {producer.torch}")
    yield f"parameters: {_parameters(summary)}"
    if summary.absent.tensors:
        yield f"not in the file: {_amount(summary.absent)}; to be given at load"
    dtypes = (f"{dtype} {bytes_text(amount.nbytes)}" for dtype, amount in summary.dtypes.items())
    yield f"dtypes: {', '.join(dtypes)}"
    for method in summary.methods:
        yield ""
        yield from _method_lines(method)
    yield ""
    yield from columns([("modules", "elements", "bytes"), *_module_rows(summary.modules)])
    for names in summary.shared:
        yield printable(f"shared memory: {', '.join(names)}")


def _parameters(summary: Summary) -> str:
    everything, trainable = summary.parameters, summary.trainable
    if not everything.tensors:
        return "none"
    share = "all" if trainable == everything else f"{trainable.elements:,}"
    return f"{_amount(everything)}; {share} trainable"


def _amount(amount: Amount) -> str:
    return f"{amount.elements:,} in {count_text(amount.tensors, 'tensor')}, {bytes_text(amount.nbytes)}"


def _method_lines(method: Method) -> Iterator[str]:
    recorded = {(True, False): ", example inputs", (True, True): ", example inputs and outputs"}
    extra = recorded.get((method.example, method.expected), "")
    yield f"method {printable(method.name)}: {_size(method)}{extra}"
    for title, ports in (("inputs", method.inputs), ("outputs", method.outputs)):
        yield f"{_PAGE}{title}"
        yield from columns(map(_port_row, ports), _PAGE * 2)
    common = sorted(method.operators, key=lambda operator: -operator.count)[:_FEW_OPERATORS]
    more = ", …" if len(method.operators) > len(common) else ""
    counts = ", ".join(f"{operator.name} {operator.count}" for operator in common)
    yield printable(f"{_PAGE}operators: {counts}{more}")
    if providers := sorted({operator.provider for operator in method.operators if operator.provider}):
        yield f"{_PAGE}needs: {', '.join(providers)}"
    for each in method.objects:
        provider = f", from {each.provider}" if each.provider else ""
        yield printable(f"{_PAGE}object {each.name}: {each.kind}, state {each.state}{provider}")
    if method.types:
        yield printable(f"{_PAGE}types: {', '.join(method.types)}")
    sections = ", ".join(f"{section.name} {bytes_text(section.nbytes)}" for section in method.sections)
    yield f"{_PAGE}sections: {sections}"


def _size(method: Method) -> str:
    return f"{count_text(method.nodes, 'node')}, {count_text(len(method.operators), 'operator')}"


def _port_row(port: Port) -> tuple[str, str, str]:
    ranges = ", ".join(f"{symbol} in {_range(*bounds)}" for symbol, bounds in port.ranges.items())
    return port.name, _port_type(port), ranges


def _port_type(port: Port) -> str:
    if port.kind == "tensor":
        return tensor_text(port.dtype, port.shape)
    if port.value is not None:
        return f"always {port.value}"
    return f"{port.kind} {', '.join(map(str, port.shape))}".rstrip()


def _range(lower: int | None, upper: int | None) -> str:
    return f"{'' if lower is None else lower}..{'' if upper is None else upper}"


def _module_rows(modules: Mapping[str, Amount]) -> Iterator[tuple[str, str, str]]:
    for path, amount in modules.items():
        depth = path.count(".") + 2 if path else 1
        yield _PAGE * depth + (path or "all"), f"{amount.elements:,}", bytes_text(amount.nbytes)


def operator_lines(method: Method) -> Iterator[str]:
    """Every operator of a method, the most frequent first."""
    ordered = sorted(method.operators, key=lambda operator: (-operator.count, operator.name))
    return columns(
        (operator.count, operator.name, operator.schema, f"from {operator.provider}" if operator.provider else "")
        for operator in ordered
    )


def tensor_lines(summary: Summary) -> Iterator[str]:
    """Every tensor."""
    return columns(
        (
            tensor.name,
            tensor.role,
            tensor_text(tensor.dtype, tensor.shape),
            bytes_text(tensor.nbytes),
            f"view of {tensor.storage}" if tensor.view or tensor.storage not in (tensor.name, "") else "",
            "not in the file" if tensor.absent else "",
        )
        for tensor in summary.tensors
    )


def export_lines(summary: Summary, stages: Mapping[str, float]) -> Iterator[str]:
    """What ``archive export`` says when it has written an archive."""
    yield f"{printable(summary.path)}: {bytes_text(summary.nbytes)}"
    for method in summary.methods:
        yield f"captured {method.name}: {_size(method)}"
        for title, ports in (("in", method.inputs), ("out", method.outputs)):
            yield from columns(((title, *_port_row(port)) for port in ports), _PAGE)
    yield f"parameters: {_parameters(summary)}"
    if summary.absent.tensors:
        yield "weights: left out; to be given at load"
    each = ", ".join(f"{name} {seconds_text(seconds)}" for name, seconds in stages.items())
    yield f"time: {seconds_text(sum(stages.values()))} ({each})"
    yield f"see it with: archive inspect {printable(summary.path)}"


def statistics_lines(summary: Summary, stages: Mapping[str, float]) -> Iterator[str]:
    """What ``archive export --stats`` adds: every operator with its count, every stage with its time."""
    for method in summary.methods:
        yield ""
        yield from operator_lines(method)
    yield ""
    yield from columns((seconds_text(seconds), name) for name, seconds in stages.items())


def converted_lines(path: str, nbytes: int, notes: Iterable[str]) -> Iterator[str]:
    """What ``archive convert`` says when it has written a file."""
    yield f"{printable(path)}: {bytes_text(nbytes)}"
    yield from map(printable, notes)


def json_text(value: object) -> str:
    """Indented JSON; numbers that JSON does not have become null."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def part_lines(parts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One line for each stored tensor and section: whether its bytes are those that were written."""
    outcomes = {**_OUTCOMES, False: "CHANGED", None: "not in the file"}
    return columns((outcomes[part["ok"]], part["kind"], bytes_text(part["nbytes"]), part["name"]) for part in parts)


def report_lines(checks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One line for each check of ``archive verify``."""
    return columns(
        (_OUTCOMES[check["ok"]], check["name"], seconds_text(check["seconds"]), check["detail"]) for check in checks
    )
