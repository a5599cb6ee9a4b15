"""Every bad archive of the corpus is refused with one error that names the place, quickly and without much memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import archive
import loader
from schema.errors import AccessError, FormatError
from schema.limits import Limits
from tests.hostile.cases import original
from tests.hostile.corpus import CORPUS
from tests.hostile.judging import WAYS, judge


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What is done once in a process is done before anything is measured."""
    for act in WAYS.values():
        act(original())


@pytest.mark.parametrize("name", CORPUS)
def test_a_bad_archive_is_refused_by_name(name: str, tmp_path: Path) -> None:
    # How long it takes beside other work is no test: `python -m tests.hostile` asks for less than a second.
    trials = judge(CORPUS[name], tmp_path, most_seconds=20)
    assert [(trial.way, trial.fault, trial.error) for trial in trials if trial.fault] == []


def test_weights_that_are_copied_do_not_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(original().read_bytes())
    module = loader.load_module(path, mmap=False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    os.truncate(path, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_file_that_is_cut_while_weights_are_copied_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, preadv = tmp_path / "model", os.preadv
    path.write_bytes(original().read_bytes())

    def cut(*arguments: Any) -> int:
        os.truncate(path, 100)
        return preadv(*arguments)

    monkeypatch.setattr("os.preadv", cut)
    with pytest.raises(AccessError, match="has become shorter while it was read"):
        loader.load(path, mmap=False)


def test_a_limit_can_be_lowered_and_raised(tmp_path: Path) -> None:
    small = Limits(section_bytes=100)
    for act in (loader.load, loader.load_module):
        with pytest.raises(FormatError, match=r"more than 100 .*pass limits=Limits\(section_bytes="):
            act(original(), limits=small)
    assert not loader.verify(original(), limits=small).ok
    with pytest.raises(FormatError, match=r"pass limits=Limits\(header_bytes="):
        archive.inspect(original(), limits=Limits(header_bytes=10))
    path = CORPUS["msgpack: a manifest over the limit"].build(tmp_path)
    with pytest.raises(FormatError, match="canonical form"):
        archive.inspect(path, limits=Limits(manifest_bytes=2**26))
