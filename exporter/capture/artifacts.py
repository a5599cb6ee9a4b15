"""What each stage hands to the next one.

``Request`` -> ``Bound`` -> ``Symbolic`` -> ``Traced`` -> ``Solved`` -> ``Enforced`` -> ``Lifted`` -> ``Wrapped`` ->
``Named`` -> ``torch.export.ExportedProgram``. From ``Traced`` on each type extends the one before it, because all that
held before still holds. The records are frozen; the graph module they carry is edited in place by the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch
from torch.export.graph_signature import OutputKind

from exporter.events import Report

if TYPE_CHECKING:
    from exporter.torch_internals import (
        EqualityConstraint,
        FakeTensorMode,
        ModuleCallSignature,
        ShapeEnv,
        Source,
        pytree,
    )

DynamicShapes = Mapping[str, Any] | Sequence[Any] | torch.export.ShapesCollection | torch.export.AdditionalInputs | None
"""Everything that may say which dimensions of the inputs vary."""

KeyPath = tuple[Any, ...]
"""The pytree keys that lead from the arguments to one leaf; the first is the argument's name."""

Dims = tuple[Any, ...]
"""For each dimension of a tensor: ``Dim``, a ``Dim.AUTO``-like hint, or None where it is fixed."""


IR = Literal["training", "inference"]
"""``training``: what the module calls, nothing decomposed. ``inference``: functional ATen, made by AOTAutograd."""


@dataclass(frozen=True)
class Options:
    """How to capture.

    Attributes:
        strict: Follow the module with Dynamo, which reads its bytecode, and not by running it.
        ir: The dialect of the program.
        preserve: Names of submodules whose calls the module call graph describes.
        deferred_asserts: Turn guards on sizes into asserts of the program, where that is possible, instead of refusing.
        joint_loss: Which output is the loss of a joint graph, forward and backward in one; None for no such graph.
        method: The method to capture.
    """

    strict: bool = False
    ir: IR = "training"
    preserve: tuple[str, ...] = ()
    deferred_asserts: bool = False
    joint_loss: int | None = None
    method: str = "forward"


@dataclass(frozen=True)
class Request:
    """What the user asked for, and who hears of it."""

    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: DynamicShapes
    options: Options = Options()
    report: Report = field(default_factory=Report)

    @property
    def method(self) -> Callable[..., Any]:
        """The method of the module that is to be captured."""
        return getattr(self.module, self.options.method)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Leaf:
    """One leaf of the example arguments.

    Attributes:
        value: The example itself.
        path: Where it stands, beginning with the name of its argument.
        source: The same for the shape environment; the names of symbols are a hash of it.
        dims: The specification of each dimension, for a tensor.
        hint: The specification of the value, for an integer.
    """

    value: Any
    path: KeyPath
    source: Source
    dims: Dims = ()
    hint: Any = None


@dataclass(frozen=True)
class Bound:
    """The example arguments, bound to the signature of the method and checked.

    Attributes:
        request: What the user asked for.
        leaves: The leaves of ``(args, kwargs)``, in the order in which they are traced.
        declared: The same leaves, in the order in which the signature declares their arguments.
        arg_names: The names of the arguments as they are passed.
        in_spec: The pytree structure of ``(args, kwargs)``.
        shapes: The specification as torch's solver wants to see it.
    """

    request: Request
    leaves: tuple[Leaf, ...]
    declared: tuple[Leaf, ...]
    arg_names: tuple[str, ...]
    in_spec: pytree.TreeSpec
    shapes: Any


@dataclass(frozen=True)
class State:
    """The module's parameters and buffers, by fully qualified name, tied names included.

    Attributes:
        real: The module's own tensors.
        fake: Their stand-ins; tied names share one.
        buffers: Which of the names are buffers.
        volatile: Which of the buffers are not persistent.
    """

    real: dict[str, torch.Tensor]
    fake: dict[str, torch.Tensor]
    buffers: frozenset[str]
    volatile: frozenset[str]


class Faked(NamedTuple):
    """A script object that a module holds, and what stands for it in the trace."""

    real: Any
    fake: Any


@dataclass(frozen=True)
class Symbolic:
    """Inputs and state as fake tensors with symbolic sizes.

    Attributes:
        bound: The checked arguments.
        module: What is traced: the user's module, or the graph that Dynamo made of it.
        mode: The mode that all the fakes belong to.
        shape_env: The environment of all the symbols.
        fakes: The stand-in of each of ``bound.leaves``.
        sources: The source of each of ``bound.leaves`` as the environment knows it.
        state: The module's parameters and buffers.
        equalities: Which sizes the specification makes equal to one another, or a function of one another.
        objects: The script objects that modules hold, by qualified name.
        specs: How preserved submodules are called, as far as that is known before the trace: their tree specs.
    """

    bound: Bound
    module: torch.nn.Module
    mode: FakeTensorMode
    shape_env: ShapeEnv
    fakes: tuple[Any, ...]
    sources: tuple[Source, ...]
    state: State
    equalities: EqualityConstraint
    objects: dict[str, Faked] = field(default_factory=dict)
    specs: dict[str, dict[str, pytree.TreeSpec]] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The method of ``module`` that is traced: what Dynamo makes of the user's is a ``forward``."""
        request = self.bound.request
        return request.options.method if self.module is request.module else "forward"


@dataclass(frozen=True)
class Output:
    """What one output of the graph is.

    Attributes:
        kind: A value for the user, or one that is written back.
        target: The parameter or buffer, by qualified name, or the index of the input among ``Symbolic.fakes``.
    """

    kind: OutputKind = OutputKind.USER_OUTPUT
    target: str | int | None = None


_Stage = TypeVar("_Stage", bound="Traced")


@dataclass(frozen=True)
class Traced:
    """The graph of one run of the module over fakes: tokens, parameters, buffers, then inputs are its placeholders.

    Attributes:
        symbolic: What was traced.
        graph_module: The graph.
        out_spec: The pytree structure of what the user gets.
        outputs: What each output of the graph is.
        calls: How each preserved submodule was called; which values go in and out is known when they are collected.
    """

    symbolic: Symbolic
    graph_module: torch.fx.GraphModule
    out_spec: pytree.TreeSpec
    outputs: tuple[Output, ...]
    calls: dict[str, ModuleCallSignature] = field(default_factory=dict, kw_only=True)

    def become(self, kind: type[_Stage], **found: Any) -> _Stage:
        """Return the record of a later stage: all that held before, and what that stage has found."""
        return kind(**{each.name: getattr(self, each.name) for each in fields(self)} | found)


@dataclass(frozen=True)
class Solved(Traced):
    """The trace holds for every size that the specification admits; no guard can be added any more."""


@dataclass(frozen=True)
class Enforced(Solved):
    """What the trace took for granted about values is asserted by nodes of the graph."""


@dataclass(frozen=True)
class Lifted(Enforced):
    """Every tensor that the graph uses is an input, and the signature says which input is what."""

    signature: torch.export.ExportGraphSignature
    constants: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Wrapped(Lifted):
    """Regions under another grad mode or under autocast are subgraphs of their own."""


@dataclass(frozen=True)
class Named(Wrapped):
    """Inputs are named after the arguments and the state that they carry."""


@dataclass(frozen=True)
class Collected(Named):
    """The signatures of preserved submodules are complete, and nothing in the graph marks their borders any more."""


@dataclass(frozen=True)
class Differentiated(Named):
    """The graph computes the gradients of the loss, too.

    Attributes:
        ranges: The ranges of the symbols of the forward; AOTAutograd gives some of them new names.
    """

    ranges: dict[Any, Any]
