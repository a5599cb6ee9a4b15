"""Tree specs, with a stand-in for every class that is not known here; and the module call graph."""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch.fx.immutable_collections import immutable_dict, immutable_list

from loader.rebuild.literals import LiteralBuilder
from loader.rebuild.signature import build_arguments
from loader.torch_internals import (
    ModuleCallEntry,
    ModuleCallSignature,
    TreeSpec,
    find_registered,
    from_dumped_context,
    pytree,
)
from schema import calls as documents
from schema.errors import FormatError, Loc
from schema.literals import Entries, Items, Literal, OperatorName, Tuple
from schema.names import check_fqns, check_identifier, check_plain_text

_BUILTIN: dict[str, Any] = {
    "builtins.tuple": tuple,
    "builtins.list": list,
    "builtins.dict": dict,
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": defaultdict,
    "collections.deque": deque,
    "torch.Size": torch.Size,
    "torch.fx.immutable_collections.immutable_list": immutable_list,
    "torch.fx.immutable_collections.immutable_dict": immutable_dict,
}

_KEYED = frozenset({dict, OrderedDict, immutable_dict})
_FACTORIES: dict[str | None, Any] = {
    None: None,
    **{factory.__name__: factory for factory in (int, float, bool, str, list, dict, set, tuple)},
}


class TreeBuilder:
    """Builds tree specs of one table of types.

    Args:
        types: The table.
        literals: Builds contexts.
    """

    def __init__(self, types: list[documents.TreeType], literals: LiteralBuilder) -> None:
        self._types = types
        self._literals = literals
        self._classes: dict[int, Any] = {}

    def build(self, tree: documents.Tree, loc: Loc, *, inputs: bool) -> TreeSpec:
        """One tree spec.

        Args:
            tree: The tree.
            loc: Where it stands.
            inputs: Whether it is one of inputs, whose keys torch writes into the code that checks them.

        Raises:
            FormatError: The context of a type does not fit it, or a key must not be in code.
        """
        if isinstance(tree, documents.Leaf):
            return pytree.treespec_leaf()
        kind = self._types[tree.container]
        _check_context(tree.context, loc, inputs=inputs)
        children = [self.build(child, (*loc, index), inputs=inputs) for index, child in enumerate(tree.children)]
        cls = self._class(tree.container, (*loc, kind.name[:80]))
        if kind.kind == "namedtuple":
            if len(children) != len(kind.fields):
                raise FormatError("not one part per field", loc=loc)
            return TreeSpec(namedtuple, cls, children)  # noqa: PYI024 - torch's own marker
        if kind.kind == "structseq":
            # A structseq that this torch does not have is a named tuple here.
            known = hasattr(cls, documents.DESCRIPTION)
            return TreeSpec(namedtuple, cls, children) if known else TreeSpec(cls, None, children)  # noqa: PYI024
        context = self._literals.build(tree.context, loc)
        if kind.kind == "module":
            _check_names(context, len(children), loc)
        elif kind.kind == "builtin":
            context = _builtin_context(cls, context, len(children), loc)
        elif kind.dumped and not hasattr(cls, documents.DESCRIPTION):
            context = _read_context(cls, context, loc)
        return TreeSpec(cls, context, children)

    def _class(self, index: int, loc: Loc) -> Any:
        if index not in self._classes:
            self._classes[index] = _find_class(self._types[index], loc)
        return self._classes[index]


def build_calls(document: documents.Calls, trees: TreeBuilder, literals: LiteralBuilder) -> list[Any]:
    """The module call graph.

    Raises:
        FormatError: It is empty, or a signature is not valid.
    """
    _check_entries(document)
    return [_build_call(entry, trees, literals) for entry in document.entries]


def build_own_call(document: documents.Calls, trees: TreeBuilder, literals: LiteralBuilder) -> Any:
    """The signature of the program itself.

    Raises:
        FormatError: There is none, or it is not valid.
    """
    _check_entries(document)
    return _build_call(document.entries[0], trees, literals).signature


def _check_entries(document: documents.Calls) -> None:
    """The program's own call comes first, and all have names that code can hold."""
    if not document.entries or document.entries[0].signature is None:
        raise FormatError("the program's own call is missing", loc=("calls",))
    check_fqns([entry.fqn for entry in document.entries if entry.fqn], ("calls",))


def _build_call(entry: documents.Call, trees: TreeBuilder, literals: LiteralBuilder) -> ModuleCallEntry:
    row = entry.signature
    if row is None:
        return ModuleCallEntry(entry.fqn)
    names, loc = row.argument_names, ("calls", entry.fqn[:80])
    in_spec = trees.build(row.in_spec, (*loc, "in_spec"), inputs=True)
    _check_call_tree(in_spec, loc)
    signature = ModuleCallSignature(
        inputs=build_arguments(row.inputs, literals, (*loc, "inputs")),
        outputs=build_arguments(row.outputs, literals, (*loc, "outputs")),
        in_spec=in_spec,
        out_spec=trees.build(row.out_spec, (*loc, "out_spec"), inputs=False),
        # torch writes these names into the code of the module that it makes of a program.
        forward_arg_names=None if names is None else [check_identifier(name, loc) for name in names],
    )
    return ModuleCallEntry(entry.fqn, signature)


def _check_call_tree(spec: TreeSpec, loc: Loc) -> None:
    """See to it that a tree is one of (args, kwargs), and that kwargs can be written into code."""
    parts = spec.children()
    if spec.type is not tuple or len(parts) != 2 or parts[0].type not in (tuple, list) or parts[1].type is not dict:
        raise FormatError("inputs are not (args, kwargs)", loc=loc)
    for key in parts[1].context:
        check_identifier(key if isinstance(key, str) else "", loc)


def _find_class(kind: documents.TreeType, loc: Loc) -> Any:
    if kind.kind not in documents.TREE_KINDS:
        raise FormatError(f"a container of kind {kind.kind[:80]!r}", loc=loc)
    if kind.kind == "builtin":
        if kind.name not in _BUILTIN:
            raise FormatError("no container of Python or torch", loc=loc)
        return _BUILTIN[kind.name]
    for part in (*kind.name.split("."), *kind.fields):
        check_identifier(part.strip("<>"), loc)
    found = _find_own(kind)
    own = None if found is None else _kind_of(found)
    if found is not None and own is None:
        raise FormatError("a container of Python or torch as one of a user's", loc=loc)
    if own == kind.kind:
        return found
    from loader.stand_ins import stand_in  # which most programs do without

    try:
        return stand_in(kind)
    except ValueError as error:
        raise FormatError(f"no such class: {error}", loc=loc) from error


def _check_names(context: Any, count: int, loc: Loc) -> None:
    """See to it that the tensors of a module have one name each."""
    is_list = isinstance(context, list) and all(isinstance(name, str) for name in context)
    if not is_list or len({*context}) != len(context) or len(context) != count:
        raise FormatError("not one name per tensor of a module", loc=loc)


def _find_own(kind: documents.TreeType) -> Any:
    """The class of this process that a description names, if there is one."""
    if kind.kind == "module":  # of which tensors alone make none
        return None
    return _imported_namedtuple(kind) if kind.kind == "namedtuple" else find_registered(kind.name)


def _kind_of(cls: type) -> str | None:
    """The kind of a registered class; None for those of Python and torch, which have contexts of their own."""
    if pytree.is_structseq_class(cls):
        return "structseq"
    if pytree.is_namedtuple_class(cls):
        return "namedtuple"
    if cls.__module__.partition(".")[0] in ("builtins", "collections", "torch"):
        return None
    return "mapping" if issubclass(cls, Mapping) else "sequence" if issubclass(cls, (tuple, list)) else "object"


def _check_context(context: Literal, loc: Loc, *, inputs: bool) -> None:
    """Refuse contexts that name functions, and of inputs those with texts that must not be in code."""
    match context:
        case OperatorName():
            raise FormatError("a container's context names a function", loc=loc)
        case str() if inputs:
            check_plain_text(context, loc)
        case Items(items) | Tuple(items):
            for item in items:
                _check_context(item, loc, inputs=inputs)
        case Entries(keys, values):
            for item in (*keys, *values):
                _check_context(item, loc, inputs=inputs)


def _imported_namedtuple(kind: documents.TreeType) -> Any:
    """The named tuple of that name and those fields, if its module is imported; nothing is imported for it."""
    module, _, name = kind.name.rpartition(".")
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    fits = isinstance(found, type) and pytree.is_namedtuple_class(found) and list(found._fields) == kind.fields  # type: ignore[attr-defined]
    return found if fits else None


def _builtin_context(cls: Any, context: Any, count: int, loc: Loc) -> Any:
    if cls is defaultdict:
        fits = isinstance(context, tuple) and len(context) == 2 and isinstance(context[0], (str, type(None)))
        if fits and context[0] in _FACTORIES and isinstance(context[1], list) and len(context[1]) == count:
            return [_FACTORIES[context[0]], context[1]]
    elif cls in _KEYED:
        if isinstance(context, list) and len(context) == count and all(isinstance(key, Hashable) for key in context):
            return context
    elif context is None or (cls is deque and isinstance(context, int) and context >= count):
        return context
    raise FormatError(f"not the context of a {cls.__name__}", loc=loc)


def _read_context(cls: Any, context: Any, loc: Loc) -> Any:
    read: Callable[[Any], Any] | None = from_dumped_context(cls)
    if read is None or getattr(read, "__module__", "").startswith("torch."):
        return context  # torch's own readers import what a context names
    try:
        return read(context)
    except Exception as error:  # a user's class may refuse in whatever way
        raise FormatError(f"{cls.__qualname__} cannot read its context: {error}", loc=loc) from error
