"""How long a capture takes, as a ratio to ``torch.export.export`` in the same run.

    python benchmarks/capture.py [--mode non-strict] [--case llama] [--rounds 7] [--no-growth]

Both capture the same module in turn, on one thread, after one capture each to warm up; garbage is collected before
each. Prints medians of processor time and of wall time, how many times faster ours is, the geometric mean of each mode,
how both grow with depth, and whether the bar is met. The numbers behind docs/speed.md.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.export import Dim

import exporter
from schema.errors import CaptureError

BAR = {"non-strict": 1.8, "strict": 1.2}
"""The least geometric mean of each mode."""

LINEAR = 1.2
"""The most that a unit of depth may cost at the greatest depth, as a ratio to the smallest; linear growth has 1."""


class Case(NamedTuple):
    """A module and how to capture it."""

    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012
    shapes: Any = None


class Times(NamedTuple):
    """Medians of seconds."""

    processor: float
    wall: float


def mlp() -> Case:
    layers = [layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.ReLU())]
    return Case(nn.Sequential(*layers), (torch.randn(4, 32),))


def mlp_dynamic_batch() -> Case:
    return mlp()._replace(shapes=({0: Dim("batch", max=64)},))


class Residual(nn.Module):
    """Two convolutions with batch norm around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (self.second(self.first(image).relu()) + image).relu()


def resnet() -> Case:
    blocks = [Residual(8) for _ in range(4)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return Case(model.train(), (torch.randn(2, 3, 16, 16),))


def resnet_dynamic_batch() -> Case:
    return resnet()._replace(shapes=({0: Dim("batch", min=2, max=64)},))


def llama(layers: int = 24) -> Case:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    ids = torch.randint(0, 64, (2, 8))
    return Case(LlamaForCausalLM(config).eval(), (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def llama_dynamic(layers: int = 24) -> Case:
    dims = {0: Dim("batch", max=64), 1: Dim("length", max=64)}
    return llama(layers)._replace(shapes={"input_ids": dims, "attention_mask": dims})


def bert() -> Case:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=4)
    ids = torch.randint(0, 64, (2, 8))
    return Case(BertModel(config).eval(), (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def swin() -> Case:
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2, 2], num_heads=[2, 2, 2], window_size=4)
    return Case(SwinModel(config).eval(), (torch.randn(1, 3, 32, 32),))


def t5() -> Case:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=4, num_heads=4, use_cache=False, decoder_start_token_id=0
    )
    ids = torch.randint(0, 64, (2, 8))
    return Case(T5ForConditionalGeneration(config).eval(), (), {"input_ids": ids, "decoder_input_ids": ids[:, :4]})


class Switching(nn.Module):
    """Computes every other step without gradients."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.blocks):
            with torch.no_grad():
                x = x + 1
            x = x * 2
        return x


def switching(blocks: int) -> Case:
    return Case(Switching(blocks), (torch.randn(4),))


CASES: dict[str, Callable[[], Case]] = {
    each.__name__.replace("_", " "): each
    for each in (mlp, mlp_dynamic_batch, resnet, resnet_dynamic_batch, bert, llama, llama_dynamic, swin, t5)
}

GROWING: dict[str, tuple[Callable[[int], Case], tuple[int, ...]]] = {
    "no_grad blocks": (switching, (10, 40, 120)),
    "llama layers": (llama, (6, 12, 24, 48)),
    "llama dynamic layers": (llama_dynamic, (6, 12, 24)),
}


def by_torch(case: Case, *, strict: bool) -> object:
    return torch.export.export(case.module, case.args, case.kwargs, dynamic_shapes=case.shapes, strict=strict)


def by_us(case: Case, *, strict: bool) -> object:
    return exporter.capture(case.module, case.args, case.kwargs, dynamic_shapes=case.shapes, strict=strict)


def timed(capture: Callable[..., object], case: Case, *, strict: bool) -> Times:
    gc.collect()
    wall, processor = time.perf_counter(), time.process_time()
    capture(case, strict=strict)
    return Times(time.process_time() - processor, time.perf_counter() - wall)


def compare(case: Case, *, strict: bool, rounds: int) -> list[Times]:
    """Time both in turn, torch first."""
    ways = (by_torch, by_us)
    for way in ways:
        way(case, strict=strict)
    taken = [[timed(way, case, strict=strict) for way in ways] for _ in range(rounds)]
    return [Times(*map(statistics.median, zip(*of_one, strict=True))) for of_one in zip(*taken, strict=True)]


def header(title: str) -> None:
    print(f"\n{title:26}{'torch':>9}{'ours':>9}{'faster':>8}{'wall: torch':>12}{'ours':>9}{'faster':>8}")


def row(title: str, times: list[Times]) -> float:
    """Print what was measured; return how many times faster ours is."""
    theirs, ours = times
    ratio = theirs.processor / ours.processor
    print(
        f"{title:26}{theirs.processor * 1e3:9.0f}{ours.processor * 1e3:9.0f}{ratio:8.2f}"
        f"{theirs.wall * 1e3:12.0f}{ours.wall * 1e3:9.0f}{theirs.wall / ours.wall:8.2f}",
        flush=True,
    )
    return ratio


def available(mode: str) -> bool:
    try:
        by_us(mlp(), strict=mode == "strict")
    except CaptureError as error:
        print(f"\n{mode}: not available ({error})")
        return False
    return True


def measure_cases(mode: str, names: list[str], rounds: int) -> Iterator[bool]:
    """Print the table of one mode; give for each promise whether it is kept."""
    header(f"{mode}, ms")
    ratios = [row(name, compare(CASES[name](), strict=mode == "strict", rounds=rounds)) for name in names]
    mean = statistics.geometric_mean(ratios)
    print(f"{'geometric mean':26}{mean:26.2f}")
    yield verdict(f"{mode}: never slower", min(ratios) >= 1)
    yield verdict(f"{mode}: geometric mean at least {BAR[mode]}", mean >= BAR[mode])


def measure_growth(mode: str, rounds: int) -> Iterator[bool]:
    header(f"{mode} by depth, ms")
    for title, (build, depths) in GROWING.items():
        taken = [compare(build(depth), strict=mode == "strict", rounds=rounds) for depth in depths]
        for depth, times in zip(depths, taken, strict=True):
            row(f"{title}: {depth}", times)
        (few, some), (_, most) = depths[:2], depths[-2:]
        ours = [times[1].processor for times in taken]
        first, last = (ours[1] - ours[0]) / (some - few), (ours[-1] - ours[-2]) / (most - depths[-2])
        growth = last / first
        yield verdict(f"{mode}: {title}: each costs {growth:.2f} of what it cost at the start", growth <= LINEAR)


def verdict(promise: str, kept: bool) -> bool:
    print(f"  {'yes' if kept else 'NO '}  {promise}")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare exporter.capture with torch.export.export.")
    parser.add_argument("--mode", action="append", choices=list(BAR))
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-growth", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    print(f"{versions}, {os.cpu_count()} cores, {datetime.date.today()}")
    kept: list[bool] = []
    for mode in filter(available, options.mode or BAR):
        kept += measure_cases(mode, options.case or list(CASES), options.rounds)
        if not options.no_growth:
            kept += measure_growth(mode, options.rounds)
    print(f"\nthe bar is {'met' if all(kept) else 'not met'}")


if __name__ == "__main__":
    main()
