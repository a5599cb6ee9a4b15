"""What is in an archive, said from its manifest alone: quick, and without torch."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from archive.composites import absent_tensors, is_composite, parts_of
from archive.reading import open_archive
from archive.structure import contiguous_strides
from archive.text import literal_text
from schema.codec import learn
from schema.dtypes import CARRIERS
from schema.limits import DEFAULT_LIMITS, Limits
from schema.names import CONSTANTS, OBJECTS, PARTS, RESERVED, SCRIPT_CLASSES

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from archive.reading import ArchiveFile
    from schema import manifest as documents


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a summary; every field is always there."""


class Producer(_Part, frozen=True):
    """Who wrote the archive: the program and its version, and the torch it captured with."""

    name: str
    version: str
    torch: str


class Amount(_Part, frozen=True):
    """How much there is of something; a tensor that has several names counts once.

    Attributes:
        tensors: Number of tensors.
        elements: Number of elements.
        nbytes: Size in bytes.
    """

    tensors: int
    elements: int
    nbytes: int

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            tensors=self.tensors + other.tensors,
            elements=self.elements + other.elements,
            nbytes=self.nbytes + other.nbytes,
        )


class Port(_Part, frozen=True):
    """An input or output.

    Attributes:
        name: Path to it: ``input_ids``, ``mask[0]``, ``output.logits``.
        kind: ``tensor``, the class of a script object, or the Python type of another value.
        dtype: Of a tensor, torch's name of the element type.
        shape: Of a tensor, its dimensions: sizes, and expressions where a size is not fixed.
        ranges: For each such expression its smallest and its largest value, None where there is no bound.
        value: Of a constant, the value that the program was captured for, as Python writes it.
    """

    name: str
    kind: str
    dtype: str
    shape: list[int | str]
    ranges: dict[str, tuple[int | None, int | None]]
    value: str | None


class Operator(_Part, frozen=True):
    """An operator.

    Attributes:
        name: Its name.
        count: How many nodes call it; none where it is only passed to one.
        schema: Its signature where the archive was written.
        provider: The Python module that registers it; empty for torch's own, and if not known.
    """

    name: str
    count: int
    schema: str
    provider: str


class Object(_Part, frozen=True):
    """A script object.

    Attributes:
        name: FQN of the constant that it is.
        kind: Its class: ``torch.classes.NAMESPACE.NAME``.
        state: What the class is given to make it, as Python writes it.
        provider: The Python package whose library registers the class; empty if not known.
    """

    name: str
    kind: str
    state: str
    provider: str


class Section(_Part, frozen=True):
    """A section: its size in bytes as stored, and after decompression."""

    name: str
    nbytes: int
    decoded_nbytes: int


class Method(_Part, frozen=True):
    """One program.

    Attributes:
        name: Its name.
        inputs: What it takes.
        outputs: What it returns.
        nodes: How many nodes its graphs have.
        operators: What it calls, by name.
        types: Container types in its inputs and outputs that Python itself does not have.
        sections: Its sections.
        state: Length of its state dictionary.
        constants: Number of its tensor constants and non-persistent buffers.
        example: Whether example inputs are recorded.
        expected: Whether their outputs are.
        objects: Its constants that are script objects.
    """

    name: str
    inputs: list[Port]
    outputs: list[Port]
    nodes: int
    operators: list[Operator]
    types: list[str]
    sections: list[Section]
    state: int
    constants: int
    example: bool
    expected: bool
    objects: list[Object]


class Tensor(_Part, frozen=True):
    """A tensor.

    Attributes:
        name: Its name.
        role: ``parameter``, ``buffer``, ``constant``, ``example``, or ``part`` of another tensor.
        dtype: torch's name of the element type.
        shape: Size of each dimension, in elements.
        nbytes: Size in bytes.
        requires_grad: Whether gradients flow to it.
        device: Where it was when it was written.
        storage: Name of the stored tensor that it is a view of; empty if it is made of other tensors.
        view: Whether it is something else than the whole of its storage, in order.
        absent: Whether its bytes are not in the file.
    """

    name: str
    role: str
    dtype: str
    shape: list[int]
    nbytes: int
    requires_grad: bool
    device: str
    storage: str
    view: bool
    absent: bool


class Summary(_Part, frozen=True):
    """The whole summary.

    Attributes:
        path: The file.
        nbytes: Its size in bytes.
        format: Version of the format.
        features: What a reader must understand beyond that version.
        producer: Who wrote it.
        methods: Its programs.
        parameters: All parameters.
        trainable: Those to which gradients flow.
        absent: Parameters and buffers that are not in the file.
        dtypes: All tensors by element type.
        modules: Parameters, buffers and constants by module, where a module includes those inside it.
        tensors: Every tensor.
        shared: Names of tensors that share memory, one list for each stored tensor with more than one.
    """

    path: str
    nbytes: int
    format: str
    features: list[str]
    producer: Producer
    methods: list[Method]
    parameters: Amount
    trainable: Amount
    absent: Amount
    dtypes: dict[str, Amount]
    modules: dict[str, Amount]
    tensors: list[Tensor]
    shared: list[list[str]]

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain dictionaries, lists, text and numbers."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


learn(Summary)


def inspect(path: str | os.PathLike[str], *, depth: int = 2, limits: Limits = DEFAULT_LIMITS) -> Summary:
    """Say what is in an archive.

    Args:
        path: The file.
        depth: How many levels of modules are told apart.
        limits: How much to spend on the file.

    Raises:
        AccessError: The file cannot be read.
        FormatError: It is not an archive, or a malformed one.
    """
    with open_archive(path, limits) as file:
        return summarize(file, depth)


def summarize(file: ArchiveFile, depth: int) -> Summary:
    """Say what is in an open archive, see :func:`inspect`."""
    manifest = file.manifest
    sizes = _sizes(manifest)
    facts = zip(manifest.tensors, sizes, absent_tensors(manifest), strict=True)
    tensors = [_tensor(tensor, manifest, size, absent=absent) for tensor, size, absent in facts]
    distinct = _distinct(manifest, tensors)
    parameters = [tensor for tensor in distinct if tensor.role == "parameter"]
    return Summary(
        path=str(file.path),
        nbytes=file.size,
        format=".".join(map(str, manifest.format)),
        features=manifest.features,
        producer=msgspec.convert(manifest.producer, Producer, from_attributes=True),
        methods=[_method(method, manifest) for method in manifest.methods],
        parameters=_amount(parameters),
        trainable=_amount(tensor for tensor in parameters if tensor.requires_grad),
        absent=_amount(tensor for tensor in distinct if tensor.absent and tensor.role in ("parameter", "buffer")),
        dtypes=_by_dtype(distinct),
        modules=_by_module(distinct, depth),
        tensors=tensors,
        shared=_shared(tensors),
    )


def _method(method: documents.Method, manifest: documents.Manifest) -> Method:
    return Method(
        name=method.name,
        inputs=[_port(port) for port in method.inputs],
        outputs=[_port(port) for port in method.outputs],
        nodes=method.nodes,
        operators=[msgspec.convert(each, Operator, from_attributes=True) for each in method.operators],
        types=method.types,
        sections=[msgspec.convert(each, Section, from_attributes=True) for each in method.sections],
        state=len(method.state),
        constants=len(method.constants),
        example=method.example is not None,
        expected=method.expected is not None,
        objects=[_object(item.key, manifest.objects[item.object]) for item in method.objects],
    )


def _object(name: str, row: documents.Object) -> Object:
    return Object(name=name, kind=row.name, state=literal_text(row.state), provider=row.provider)


def _port(port: documents.Port) -> Port:
    varying = [size for size in port.shape if not isinstance(size, int)]
    bounded = [size for size in varying if (size.lower, size.upper) != (None, None)]
    constant = port.kind != "tensor" and not port.kind.startswith(SCRIPT_CLASSES) and not varying
    return Port(
        name=port.name,
        kind=port.kind,
        dtype=port.dtype,
        shape=[size if isinstance(size, int) else size.symbol for size in port.shape],
        ranges={size.symbol: (size.lower, size.upper) for size in bounded},
        value=literal_text(port.value) if constant else None,
    )


def _sizes(manifest: documents.Manifest) -> list[int]:
    """Size in bytes of each tensor; of one that is made of others, of those together."""
    sizes: list[int] = []
    for tensor in manifest.tensors:
        if is_composite(tensor):
            sizes.append(sum(sizes[part] for part in parts_of(tensor)))
        else:
            nbytes = math.prod(tensor.shape) * CARRIERS[tensor.dtype].nbytes
            sizes.append(min(nbytes, manifest.storages[tensor.storage].nbytes))
    return sizes


def _tensor(tensor: documents.Tensor, manifest: documents.Manifest, nbytes: int, *, absent: bool) -> Tensor:
    storage = None if is_composite(tensor) else manifest.storages[tensor.storage]
    return Tensor(
        name=tensor.name,
        role=_role(tensor),
        dtype=tensor.dtype,
        shape=tensor.shape,
        nbytes=nbytes,
        requires_grad=tensor.requires_grad,
        device=tensor.device,
        storage=storage.name if storage else "",
        view=storage is not None and (_strides(tensor) is not None or nbytes < storage.nbytes),
        absent=absent,
    )


def _strides(tensor: documents.Tensor) -> tuple[int, ...] | None:
    """The strides of a tensor, None if its elements follow each other."""
    in_order = tensor.strides is None or tensor.strides == contiguous_strides(tensor.shape)
    return None if in_order else tuple(tensor.strides or ())


def _role(tensor: documents.Tensor) -> str:
    if tensor.name.startswith(PARTS):
        return "part"
    if tensor.parameter:
        return "parameter"
    if tensor.name.startswith((CONSTANTS, OBJECTS)):
        return "constant"
    return "example" if tensor.name.startswith(RESERVED) else "buffer"


def _distinct(manifest: documents.Manifest, tensors: list[Tensor]) -> list[Tensor]:
    """The tensors without parts of others, and without those that have the very elements of one before them."""
    first: dict[object, Tensor] = {}
    for tensor, described in zip(tensors, manifest.tensors, strict=True):
        if tensor.role != "part":
            view = described.storage, described.dtype, described.offset, tuple(described.shape), _strides(described)
            first.setdefault((view, *parts_of(described)), tensor)
    return list(first.values())


def _amount(tensors: Iterable[Tensor]) -> Amount:
    tensors = list(tensors)
    return Amount(
        tensors=len(tensors),
        elements=sum(math.prod(tensor.shape) for tensor in tensors),
        nbytes=sum(tensor.nbytes for tensor in tensors),
    )


def _by_dtype(tensors: list[Tensor]) -> dict[str, Amount]:
    groups = defaultdict(list)
    for tensor in tensors:
        groups[tensor.dtype].append(tensor)
    return {dtype: _amount(groups[dtype]) for dtype in sorted(groups)}


def _by_module(tensors: list[Tensor], depth: int) -> dict[str, Amount]:
    """Amounts by path of module, outer before inner, in the order of the tensors; the program itself is ``""``."""
    groups: dict[tuple[str, ...], list[Tensor]] = {(): []}
    for tensor in tensors:
        if tensor.role != "example":
            *path, _ = tensor.name.removeprefix(CONSTANTS).split(".")
            groups.setdefault(tuple(path[:depth]), []).append(tensor)
    amounts: dict[str, Amount] = {}
    for innermost, group in groups.items():
        own = _amount(group)
        for level in range(len(innermost) + 1):
            module = ".".join(innermost[:level])
            amounts[module] = own + amounts[module] if module in amounts else own
    return amounts


def _shared(tensors: list[Tensor]) -> list[list[str]]:
    groups = defaultdict(list)
    for tensor in tensors:
        if tensor.storage:
            groups[tensor.storage].append(tensor.name)
    return [names for names in groups.values() if len(names) > 1]
