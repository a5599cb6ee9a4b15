"""The manifest: what is in the file. The only document that is not compressed, and the first that is read."""

from typing import Final, Union

from msgspec import Struct

from schema.literals import Literal

EXAMPLE_SEED: Final = 0
"""What torch's random state is seeded with before outputs of an example are recorded or compared."""


# No record can hold itself, so Python need not look for cycles.
class Record(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A record that is written as a map, so that a stranger can read it."""


class Producer(Record, frozen=True):
    """Who wrote the archive: the program and its version, and the torch it captured with."""

    name: str
    version: str
    torch: str


class Storage(Record, frozen=True):
    """A stored tensor: the bytes of one torch storage.

    Attributes:
        name: Its name in the safetensors header.
        nbytes: Its size in bytes.
        blake3: BLAKE3 of its bytes; empty where they are absent.
        absent: Whether the file leaves its bytes out: weights that are given at load, or a tensor on the meta device,
            which has none.
    """

    name: str
    nbytes: int
    blake3: bytes
    absent: bool = False


class NamedTensor(Record, frozen=True):
    """A key of a dictionary of tensors, and the place of its tensor in the table of tensors."""

    key: str
    tensor: int


class Sparse(Record, frozen=True):
    """What a sparse tensor is made of.

    Attributes:
        layout: torch's name of the layout.
        parts: Places of its tensors, in the order of :data:`schema.dtypes.SPARSE_LAYOUTS`.
        coalesced: Of the coordinate layout, whether its indices are known to be distinct and in order.
    """

    layout: str
    parts: list[int]
    coalesced: bool = False


class Subclass(Record, frozen=True):
    """What a wrapper subclass is made of: a tensor whose class defines ``__tensor_flatten__``.

    Attributes:
        module: Module that defines the class.
        qualname: Name of the class in it.
        parts: Its inner tensors, by attribute.
        context: The other result of ``__tensor_flatten__``.
    """

    module: str
    qualname: str
    parts: list[NamedTensor]
    context: Literal = None


class Tensor(Record, frozen=True):
    """A tensor: a view of a storage, or made of tensors that stand before it.

    Attributes:
        name: Its name: an FQN, or one of the reserved names.
        dtype: torch's name of its element type.
        shape: Size of each dimension, in elements.
        storage: Place in the table of storages, -1 if it is made of other tensors.
        strides: Step of each dimension, in elements; None if contiguous.
        offset: First element, in elements of this type from the start of the storage.
        device: Where it was when it was written, as torch writes it.
        requires_grad: Whether gradients flow to it.
        parameter: Whether it is an ``nn.Parameter``.
        conjugate: Whether its elements are the conjugates of those in the storage.
        negative: Whether its elements are the negatives of those in the storage.
        tied: Place of the tensor that is the same object under the name that came first, None if this one did.
        sparse: What it is made of, if it is sparse.
        subclass: What it is made of, if it is a wrapper subclass.
    """

    name: str
    dtype: str
    shape: list[int]
    storage: int
    strides: list[int] | None = None
    offset: int = 0
    device: str = "cpu"
    requires_grad: bool = False
    parameter: bool = False
    conjugate: bool = False
    negative: bool = False
    tied: int | None = None
    sparse: Sparse | None = None
    subclass: Subclass | None = None


class Object(Record, frozen=True):
    """A script object: an instance of a class that a library registers with torch.

    Attributes:
        name: Its class, as Python reaches it: ``torch.classes.NAMESPACE.NAME``.
        state: What the class's own ``__getstate__`` gives.
        provider: The Python package whose library registers the class; empty if not known.
    """

    name: str
    state: Literal
    provider: str = ""


class NamedObject(Record, frozen=True):
    """A constant that is no tensor.

    Attributes:
        key: Its FQN.
        object: Its place in the table of objects.
        at: Its place among all constants of the program, those that are tensors counted.
    """

    key: str
    object: int
    at: int


class Section(Record, frozen=True):
    """A section of one method.

    Attributes:
        name: ``graph``, ``signature``, ``constraints``, ``calls`` or ``debug``.
        nbytes: Size in bytes as stored.
        decoded_nbytes: Size in bytes after decompression.
        sha256: SHA-256 of the stored bytes.
    """

    name: str
    nbytes: int
    decoded_nbytes: int
    sha256: bytes


class Dimension(Record, frozen=True):
    """A dimension whose size is not fixed.

    Attributes:
        symbol: The expression, as people read it. It is never evaluated.
        lower: Smallest size, None if there is no bound.
        upper: Largest size, None if there is no bound.
    """

    symbol: str
    lower: int | None = None
    upper: int | None = None


class Port(Record, frozen=True):
    """An input or output, as people read it; what the loader checks against is in the sections.

    Attributes:
        name: Path to it: ``input_ids``, ``mask[0]``, ``output.logits``.
        kind: ``tensor``, the class of a script object, or the Python type of another value.
        dtype: Of a tensor, torch's name of the element type.
        shape: Of a tensor, its dimensions.
        value: Of a constant, the value that the program was captured for.
    """

    name: str
    kind: str
    dtype: str = ""
    shape: list[Union[int, Dimension]] = []  # noqa: UP007
    value: Literal = None


class OperatorUse(Record, frozen=True):
    """An operator that the graphs call, or pass to one that does.

    Attributes:
        name: ``namespace::name.overload``.
        count: How many nodes call it.
        schema: Its signature where the archive was written; empty for what is no torch operator.
        provider: The Python module that registers it, for people to import; empty for torch's own, and if not known.
    """

    name: str
    count: int
    schema: str = ""
    provider: str = ""


class ExampleValue(Record, frozen=True):
    """A recorded flat value: a place in the table of tensors, a literal, or a place in the table of objects."""

    tensor: int | None = None
    value: Literal = None
    object: int | None = None


class Method(Record, frozen=True):
    """One program.

    Attributes:
        name: ``forward``, or what the user called it.
        sections: Its sections.
        inputs: What it takes.
        outputs: What it returns.
        operators: What it calls, sorted by name.
        nodes: How many nodes its graphs have.
        types: Container types in its inputs and outputs that Python itself does not have.
        state: Its state dictionary, in order.
        constants: Its tensor constants and non-persistent buffers, in order.
        example: Recorded flat inputs.
        expected: Recorded flat outputs of the example.
        objects: Its other constants, in order.
    """

    name: str
    sections: list[Section]
    inputs: list[Port]
    outputs: list[Port]
    operators: list[OperatorUse]
    nodes: int
    types: list[str] = []
    state: list[NamedTensor] = []
    constants: list[NamedTensor] = []
    example: list[ExampleValue] | None = None
    expected: list[ExampleValue] | None = None
    objects: list[NamedObject] = []


class Manifest(Record, frozen=True):
    """The whole manifest.

    Attributes:
        format: (major, minor) of the format.
        producer: Who wrote it.
        methods: Its programs, which share one set of tensors.
        storages: Every stored tensor but the sections.
        tensors: Every tensor.
        features: What a reader must understand beyond its own version.
        objects: Every script object.
    """

    format: tuple[int, int]
    producer: Producer
    methods: list[Method]
    storages: list[Storage]
    tensors: list[Tensor]
    features: list[str] = []
    objects: list[Object] = []
