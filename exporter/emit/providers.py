"""Which Python module an operator comes from: what must be imported where the archive is loaded."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.torch_internals import custom_op_function, loaded_libraries, registration_files
from schema.names import is_module_name
from schema.operators import ALLOWED_NAMESPACES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.torch_internals import OpOverload


def find_provider(operator: OpOverload) -> str:
    """Name of the module that registers an operator; empty for torch's own, and where it cannot be found."""
    if operator.namespace in ALLOWED_NAMESPACES:
        return ""
    return next(filter(_can_be_imported, _candidates(operator)), "")


def find_class_provider(namespace: str) -> str:
    """Name of the package whose library registers the classes of a namespace; empty where it cannot be found."""
    return next(filter(_can_be_imported, _named_as(namespace)), "")


def _can_be_imported(module: str) -> bool:
    return is_module_name(module) and module not in ("__main__", "torch")  # torch is there anyway


def _candidates(operator: OpOverload) -> Iterator[str]:
    """Names of modules, the surest first: by the Python code that registers it, its namespace, its library."""
    function = custom_op_function(operator)
    if function is not None:
        yield function.__module__
    modules = _modules_by_file()
    yield from (modules[file] for file in registration_files(operator) if file in modules)
    yield from _named_as(operator.namespace)


def _named_as(namespace: str) -> Iterator[str]:
    if namespace in sys.modules:
        yield namespace
    libraries = [Path(library) for library in loaded_libraries()]
    named = [library for library in libraries if namespace in str(library)]
    if len(chosen := named or libraries) == 1:
        yield _package_of(chosen[0])


def _modules_by_file() -> dict[str, str]:
    loaded = list(sys.modules.items())
    return {file: name for name, module in loaded if (file := getattr(module, "__file__", None))}


@cache
def _package_of(library: Path) -> str:
    """The package in whose folder a library lies; empty if it lies outside of every package."""
    for folder in filter(os.path.isabs, sys.path):
        if library.is_relative_to(folder):
            first = library.relative_to(folder).parts[0]
            return first if (Path(folder) / first).is_dir() else ""
    return ""
