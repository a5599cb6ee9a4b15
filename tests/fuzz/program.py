"""Well-formed archives with changed documents, from the header up to the call of the rebuilt program."""

from __future__ import annotations

import contextlib
import resource
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from hypothesis import HealthCheck, given, seed, settings, strategies as st
from hypothesis.errors import Flaky

import archive
import loader
from loader.torch_internals import pytree
from tests.fuzz.archives import NAMES, Parts, in_memory, plain, put_together, take_apart, with_sections, written
from tests.fuzz.edits import Edit, edit, encode
from tests.fuzz.judging import Finding, judge, judge_call

MOST_ADDRESSES = 16 * 2**30
"""Bytes that this process may map: a program may ask for any memory when it is called."""

NUMBERS = st.integers(0, 2**32 - 1)
EDITS = st.lists(st.builds(Edit, st.integers(0, 5), NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=3)
outcomes: Counter[str] = Counter()


@cache
def base(name: str) -> Parts:
    """One of the archives."""
    with in_memory(written(name)) as path:
        return take_apart(path)


def build(name: str, edits: list[Edit]) -> bytes:
    """An archive with changes to its sections and to its manifest."""
    parts = base(name)
    documents = {section: plain(content) for section, content in parts.sections.items()}
    before = msgspec.msgpack.encode(parts.manifest)
    manifest = plain(before)
    for change in edits:
        edit([*documents.values(), manifest], change)
    changed = {section: encode(each, parts.sections[section]) for section, each in documents.items()}
    changed = {section: content for section, content in changed.items() if content != parts.sections[section]}
    parts = with_sections(parts, changed)
    if manifest == plain(before):
        return put_together(parts)
    return put_together(parts, encode(_with_rows_of(manifest, before, parts), before))


def _with_rows_of(manifest: Any, before: bytes, parts: Parts) -> Any:
    """A changed manifest with the digests that belong to the sections; those of others are somewhere in it, or not."""
    old, new = plain(before), plain(msgspec.msgpack.encode(parts.manifest))
    with contextlib.suppress(Exception):
        for place, row in enumerate(new["methods"][0]["sections"]):
            if manifest["methods"][0]["sections"][place] == old["methods"][0]["sections"][place]:
                manifest["methods"][0]["sections"][place] = row
    return manifest


def check(data: bytes) -> None:
    """Do everything with an archive that can be done.

    Raises:
        Finding: Something does what it must not.
    """
    with in_memory(data) as path:
        judge(lambda: archive.inspect(path), "inspect")
        program = judge(lambda: loader.load(path, debug=True), "load")
        module = judge(lambda: loader.load_module(path), "load_module")
        outcomes["loaded" if program else "refused by load"] += 1
        outcomes["loaded as a module" if module else "refused by load_module"] += 1
        if module is not None and module.example_inputs is not None:
            judge_call(lambda: _call(module, module.example_inputs), "call")
            outcomes["called"] += 1


def _call(module: Any, example: Any) -> None:
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, example)
    with torch.random.fork_rng(), torch.no_grad():
        module(*args, **kwargs)


def try_seed(number: int, examples: int, current: Path | None = None) -> str:
    """Try as many examples as are told, drawn in an order that the number decides.

    Args:
        number: The number.
        examples: How many.
        current: Where to write each archive before it is tried.

    Returns:
        The first finding, with the smallest changes that bring it about; empty if there is none.
    """

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(NAMES), EDITS)
    def examine(name: str, edits: list[Edit]) -> None:
        data = build(name, edits)
        if current:
            current.write_bytes(data)
        check(data)

    try:
        examine()
    except (Finding, Flaky) as finding:
        return f"{finding}\n" + "\n".join(getattr(finding, "__notes__", []))
    return ""


def prepare(*, limited: bool = True) -> None:
    """Import all that a first load does, and let operators fail that ask for absurd memory."""
    for name in NAMES:
        with in_memory(written(name)) as path:
            loader.load(path).module()
    if limited:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
