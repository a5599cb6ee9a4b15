"""How nested values are flattened, and the module call graph: the ``calls`` section."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from exporter.emit.literals import emit_literal
from exporter.emit.signature import emit_argument
from exporter.emit.tables import Table
from exporter.emit.texts import check_argument_name, check_fqn, check_keys
from exporter.torch_internals import (
    ModuleCallEntry,
    TreeSpec,
    module_tensors,
    pytree,
    tree_serializer,
)
from schema import calls as documents
from schema.errors import Loc, UnsupportedError
from schema.literals import Items, Literal, Tuple

_BUILTIN: dict[Any, str] = {
    tuple: "builtins.tuple",
    list: "builtins.list",
    dict: "builtins.dict",
    OrderedDict: "collections.OrderedDict",
    defaultdict: "collections.defaultdict",
    deque: "collections.deque",
    torch.Size: "torch.Size",
    fx.immutable_collections.immutable_list: "torch.fx.immutable_collections.immutable_list",
    fx.immutable_collections.immutable_dict: "torch.fx.immutable_collections.immutable_dict",
}


class CallEmitter:
    """Collects tree specs and the table of the types in them."""

    def __init__(self) -> None:
        self._types: Table[documents.TreeType] = Table()

    def document(
        self, entries: list[ModuleCallEntry], example: tuple[tuple[Any, ...], dict[str, Any]] | None
    ) -> documents.Calls:
        """The whole section."""
        calls = [self._call(entry, ("calls", entry.fqn)) for entry in entries]
        tree = None if example is None else self.tree(pytree.tree_flatten(example)[1], ("example",), inputs=True)
        return documents.Calls(entries=calls, types=self._types.rows, example=tree)

    def tree(self, spec: TreeSpec, loc: Loc, *, inputs: bool) -> documents.Tree:
        """One tree spec.

        Args:
            spec: The tree spec.
            loc: Where it is.
            inputs: Whether it is one of inputs, whose keys torch writes into the code that checks them.

        Raises:
            UnsupportedError: The context of a type cannot be stored, or holds a key that code cannot contain.
        """
        if spec.is_leaf():
            return documents.Leaf()
        kind = _describe(spec)
        children = [self.tree(child, (*loc, index), inputs=inputs) for index, child in enumerate(spec.children())]
        context = _context(spec, kind, loc)
        if inputs:
            check_keys(context, loc)
        return documents.Branch(self._types.place(kind), context, children)

    def _call(self, entry: ModuleCallEntry, loc: Loc) -> documents.Call:
        signature = entry.signature
        if entry.fqn:
            check_fqn(entry.fqn, loc)
        if signature is None:
            return documents.Call(entry.fqn)
        for key in signature.in_spec.child(1).context:
            check_argument_name(key, loc)
        return documents.Call(
            entry.fqn,
            documents.CallSignature(
                inputs=[emit_argument(argument, loc) for argument in signature.inputs],
                outputs=[emit_argument(argument, loc) for argument in signature.outputs],
                in_spec=self.tree(signature.in_spec, (*loc, "in_spec"), inputs=True),
                out_spec=self.tree(signature.out_spec, (*loc, "out_spec"), inputs=False),
                argument_names=signature.forward_arg_names,
            ),
        )


def _describe(spec: TreeSpec) -> documents.TreeType:
    if spec.type in _BUILTIN:
        return documents.TreeType(name=_BUILTIN[spec.type], kind="builtin")
    cls = spec.context if spec.type is namedtuple else spec.type  # noqa: PYI024 - torch's own marker
    if described := getattr(cls, documents.DESCRIPTION, None):
        return described  # type: ignore[no-any-return]
    if module_tensors(spec) is not None:
        return documents.TreeType(name=f"{cls.__module__}.{cls.__qualname__}", kind="module")
    serializer = tree_serializer(spec.type)
    name = serializer.name if serializer and cls is spec.type else None
    return documents.TreeType(
        name=name or f"{cls.__module__}.{cls.__qualname__}",
        kind=_kind(cls),
        fields=_fields(cls),
        dumped=bool(serializer and cls is spec.type and serializer.dump and not pytree.is_namedtuple_class(cls)),
    )


def _kind(cls: type) -> str:
    if pytree.is_namedtuple_class(cls):
        return "namedtuple"
    if pytree.is_structseq_class(cls):
        return "structseq"
    return "mapping" if issubclass(cls, Mapping) else "sequence" if issubclass(cls, (tuple, list)) else "object"


def _fields(cls: type) -> list[str]:
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    return list(getattr(cls, "_fields", ()))


def _context(spec: TreeSpec, kind: documents.TreeType, loc: Loc) -> Literal:
    if kind.kind in ("namedtuple", "structseq"):
        return None
    if (names := module_tensors(spec)) is not None:
        return Items([emit_literal(name, loc) for name in names])
    context = spec.context
    if spec.type is defaultdict:
        factory, keys = context
        name = None if factory is None else factory.__name__
        return Tuple([name, Items([emit_literal(key, loc) for key in keys])])
    serializer = tree_serializer(spec.type)
    if kind.dumped and serializer and serializer.dump and not hasattr(spec.type, documents.DESCRIPTION):
        context = serializer.dump(context)
    try:
        return emit_literal(context, loc)
    except UnsupportedError as error:
        remedy = "register the type with to_dumpable_context and from_dumpable_context"
        raise UnsupportedError(f"the tree context of {kind.name} cannot be stored", loc=loc, remedy=remedy) from error
