"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _no_hooks_of_failed_exports() -> Iterator[None]:
    """Where an export of torch 2.11 fails, a hook stays behind, which Dynamo then meets in every other module."""
    hooks = torch.nn.modules.module._global_buffer_registration_hooks
    before = dict(hooks)
    yield
    hooks.clear()
    hooks.update(before)
