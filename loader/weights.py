"""Given weights fitted to a program: each to the tensor of its name, all of them or none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from archive.composites import is_composite, made_of
from archive.reading import ArchiveFile
from archive.structure import is_contiguous, most_absent, strides_of
from loader.given import CODE_DTYPES, OtherType, Weights, given_tensors
from loader.parts import PLAIN, Kind, Parts
from loader.rebuild.literals import DTYPES, torch_constant
from loader.rebuild.tensors import TensorBuilder
from loader.torch_internals import set_lazy_bits
from schema.dtypes import CARRIERS, stored_shape
from schema.errors import FormatError, WeightsError
from schema.literals import DType
from schema.manifest import Manifest, Method, Storage

_FEW = 6
_REMEDY = "pass the weights of this very model; a mapping of names to tensors can rename, cast or leave out some"
_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


class Slot(NamedTuple):
    """A tensor that wants a weight: a view of a storage.

    Attributes:
        name: Its name.
        storage: What tells its storage from others.
        nbytes: Size of the storage in bytes.
        dtype: Its element type.
        shape: Its shape.
        strides: Its strides, in elements.
        offset: Its first element.
        conjugate: Whether its elements are the conjugates of those in memory.
        negative: Whether they are the negatives of those.
    """

    name: str
    storage: Hashable
    nbytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    conjugate: bool = False
    negative: bool = False

    def view(self, memory: torch.Tensor) -> torch.Tensor:
        """This tensor on other memory, as large as its storage."""
        view = torch.empty(0, dtype=self.dtype, device=memory.device)
        view.set_(memory.untyped_storage(), self.offset, self.shape, self.strides)
        set_lazy_bits(view, conjugate=self.conjugate, negative=self.negative)
        return view

    def covers(self, other: Slot) -> bool:
        """Whether its elements are in memory where those of another tensor on the same storage are, or hold them."""
        return self.is_whole or self[3:7] == other[3:7]

    @property
    def is_whole(self) -> bool:
        """Whether it is its whole storage, in order and as it is."""
        if self.conjugate or self.negative:
            return False
        size = self.dtype.itemsize * torch.Size(self.shape).numel()
        return self.offset == 0 and size == self.nbytes and is_contiguous(self.shape, self.strides)


class Wanted(NamedTuple):
    """What weights are wanted: slots for those with memory, and by name, the kinds of those that are made of them."""

    slots: Sequence[Slot]
    kinds: Mapping[str, Kind]


def fit(
    wanted: Wanted,
    parts: Parts,
    *,
    others: Iterable[str] = (),
    base: Callable[[Hashable], torch.Tensor] | None = None,
) -> dict[Hashable, torch.Tensor]:
    """The bytes of each storage, made of given tensors; a given tensor itself where it is the whole storage.

    Of tensors that share memory it is enough that one is given which holds the others.

    Args:
        wanted: Tensors that want a weight.
        parts: Weights by name.
        others: Names that may be given too.
        base: What a storage holds so far, for one that no tensor is the whole of; zeros if None.

    Raises:
        WeightsError: The weights do not fit, with everything that does not.
    """
    slots, given = wanted.slots, parts.tensors
    groups: dict[Hashable, list[Slot]] = {}
    for slot in slots:
        groups.setdefault(slot.storage, []).append(slot)
    extra = given.keys() - {slot.name for slot in slots} - set(others)
    problems = {
        "missing": [slot.name for group in groups.values() for slot in _missing(group, given)],
        "not in the program": sorted(map(str, extra)),
        "of another shape": [],
        "of another type": [],
    }
    for slot in slots:
        if slot.name in given and (misfit := _misfit(slot, given[slot.name])):
            title, detail = misfit
            problems[title].append(f"{slot.name} is {detail}")
    for name, kind in wanted.kinds.items():
        found = parts.kinds.get(name, PLAIN if name in given else kind)
        if misfit := found.misfit(kind):
            title, detail = misfit
            problems[title].append(f"{name} is {detail}")
    _refuse(problems)
    differing: list[str] = []
    made = {}
    for key, group in groups.items():
        pairs = [(slot, _normal(slot, given[slot.name])) for slot in group if slot.name in given]
        made[key] = _memory(pairs, base)
        differing += [slot.name for slot, tensor in pairs if not _same_bytes(slot.view(made[key]), tensor)]
    _refuse({"unlike what shares memory with them": differing})
    return made


def _missing(group: list[Slot], given: Mapping[str, Any]) -> Iterator[Slot]:
    present = [slot for slot in group if slot.name in given]
    return (slot for slot in group if not any(each.covers(slot) for each in present))


def _misfit(slot: Slot, tensor: Any) -> tuple[str, str] | None:
    """What is wrong with the tensor that is given for a slot; a type that files lack may come as its carrier."""
    if problem := misfit_of(tensor):
        return "of another type", problem
    name = _dtype_name(slot.dtype)
    carrier = DTYPES[CODE_DTYPES[CARRIERS[name].code]] if name in CARRIERS else slot.dtype
    if tensor.dtype not in (slot.dtype, carrier):
        return "of another type", f"{_dtype_name(tensor.dtype)} instead of {name}"
    shape = slot.shape if tensor.dtype == slot.dtype else stored_shape(name, slot.shape)
    if tuple(tensor.shape) != tuple(shape):
        return "of another shape", f"{list(tensor.shape)} instead of {list(shape)}"
    return None


_NO_WEIGHT: tuple[tuple[Callable[[Any], bool], Callable[[Any], str]], ...] = (
    (lambda value: isinstance(value, OtherType), lambda value: value.code),
    (lambda value: not isinstance(value, torch.Tensor), lambda value: f"a {type(value).__name__}"),
    (lambda value: type(value) not in _PLAIN_TYPES, lambda value: f"a {type(value).__name__}"),
    (lambda value: value.layout is not torch.strided, lambda value: str(value.layout).removeprefix("torch.")),
    (lambda value: value.is_meta, lambda _: "without memory"),
)
"""What cannot be a weight, in the order in which it is asked, and how to say so."""


def misfit_of(value: Any) -> str | None:
    """What a value is, if it cannot be a weight."""
    return next((describe(value) for holds, describe in _NO_WEIGHT if holds(value)), None)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _refuse(problems: Mapping[str, list[str]]) -> None:
    parts = [f"{len(names)} {title} ({few(names)})" for title, names in problems.items() if names]
    if parts:
        raise WeightsError(f"the weights do not fit the program: {', '.join(parts)}", remedy=_REMEDY)


def few(names: Sequence[str]) -> str:
    """The first of some names."""
    return ", ".join(name[:160] for name in names[:_FEW]) + (", …" if len(names) > _FEW else "")


def _normal(slot: Slot, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that fits, as one of the slot's own type."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return tensor if tensor.dtype == slot.dtype else tensor.contiguous().view(slot.dtype).view(slot.shape)


def _memory(
    parts: Sequence[tuple[Slot, torch.Tensor]], base: Callable[[Hashable], torch.Tensor] | None
) -> torch.Tensor:
    """The bytes of one storage, from the tensors that are given for it."""
    for slot, tensor in parts:
        if slot.is_whole:
            return _bytes(tensor)
    slot, first = parts[0]
    memory = base(slot.storage).clone() if base else torch.zeros(slot.nbytes, dtype=torch.uint8)
    memory = memory.to(first.device)
    for slot, tensor in parts:
        write(slot.view(memory), tensor)
    return memory


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, as the whole of a storage; its own memory where it is one."""
    tensor = tensor.contiguous()
    if tensor.untyped_storage().nbytes() != tensor.nbytes:
        tensor = tensor.clone()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def write(target: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a tensor into another, and only once where elements of that one are the same memory."""
    for dim, stride in enumerate(target.stride()):
        if stride == 0 and target.shape[dim] > 1:
            target, value = target.narrow(dim, 0, 1), value.narrow(dim, 0, 1)
    target.copy_(value)


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    lazy = one.is_conj() or one.is_neg()
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride() and not lazy:
        return True
    pair = (each.resolve_conj().resolve_neg() for each in (one, other.to(one.device)))
    return torch.equal(*(each.contiguous().view(-1).view(torch.uint8) for each in pair))


def archive_weights(
    archive: ArchiveFile, method: Method, weights: Weights, tensors: TensorBuilder
) -> dict[int, torch.Tensor]:
    """The bytes of the storages of a method's weights, by their place, from weights given in their stead.

    Args:
        archive: The archive.
        method: The method.
        weights: The weights.
        tensors: Builds the tensors of the archive.

    Raises:
        WeightsError: They do not fit.
        FormatError: The archive asks for more memory than its tensors need.
    """
    manifest, storages = archive.manifest, archive.manifest.storages
    slots, kinds = [], {}
    for name, place in _named(manifest, method):
        if is_composite(manifest.tensors[place]):
            kinds[name] = Kind(*tensors.kind(place))
        else:
            slots.append(_slot(manifest, name, place))
    _check_sizes(storages, slots)

    def base(place: Any) -> torch.Tensor:
        row = storages[place]
        return torch.zeros(row.nbytes, dtype=torch.uint8) if row.absent else tensors.stored(place)

    others = {name for each in manifest.methods for name, _ in _named(manifest, each)}
    with given_tensors(weights) as given:
        made: dict[Any, torch.Tensor] = fit(Wanted(slots, kinds), given, others=others, base=base)
    return made


def _named(manifest: Manifest, method: Method) -> Iterator[tuple[str, int]]:
    """The weights of a method and all that they are made of: names, and places in the table of tensors."""
    for item in method.state:
        yield from made_of(manifest.tensors, item.key, item.tensor)


def _slot(manifest: Manifest, name: str, place: int) -> Slot:
    row = manifest.tensors[place]
    dtype = torch_constant(DType(row.dtype), ("tensors", row.name))
    nbytes = manifest.storages[row.storage].nbytes
    view = tuple(row.shape), tuple(strides_of(row)), row.offset, row.conjugate, row.negative
    return Slot(name, row.storage, nbytes, dtype, *view)


def _check_sizes(storages: Sequence[Storage], slots: Sequence[Slot]) -> None:
    """Refuse to make memory that is out of proportion; that of what is in the file has been compared with its size."""
    given: Counter[Hashable] = Counter()
    for slot in slots:
        given[slot.storage] += math.prod(slot.shape) * slot.dtype.itemsize
    for place, nbytes in given.items():
        row = storages[place]  # type: ignore[call-overload]
        if row.absent and row.nbytes > most_absent(nbytes):
            raise FormatError(f"{row.nbytes} bytes for weights of {nbytes} bytes", loc=("storages", row.name))
