"""The programs that are measured: how to build each, with random weights, and what it is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.export import Dim

SEED: Final = 0


class Program(NamedTuple):
    """A program to measure.

    Attributes:
        build: Makes the module.
        inputs: Dtype and shape of each argument; all are filled with ones.
        shapes: Its ``dynamic_shapes``.
        peers: Which peers beyond torch.export can keep it: keys of ``ways.WAYS``.
        quick: Whether ``--quick`` has it.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    shapes: Any = None
    peers: tuple[str, ...] = ("torchscript", "eager", "onnxruntime")
    quick: bool = False


class Whole(nn.Module):
    """A model of transformers that returns one tensor, so that every peer can call it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x, return_dict=False)[0]

    def tie_weights(self) -> None:
        self.model.tie_weights()


class Block(nn.Module):
    """Ten nodes: a parameter and nine operators."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (x * self.weight).relu() + x
        y = (y - 0.5).view(2, 4).transpose(0, 1)
        return y.reshape(8).tanh() * 0.5


def chain(nodes: int) -> nn.Module:
    """A graph of so many nodes, a tenth of them parameters, in modules of ten blocks."""
    return nn.Sequential(*(nn.Sequential(*(Block() for _ in range(10))) for _ in range(nodes // 100)))


def tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


def resnet50() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return Whole(ResNetForImageClassification(ResNetConfig(num_labels=1000)))


def bert(**sizes: int) -> nn.Module:
    from transformers import BertConfig, BertModel

    return Whole(BertModel(BertConfig(**sizes)))


def bert_narrow() -> nn.Module:
    """The same graph with narrow layers: 5.5 million parameters."""
    return bert(hidden_size=128, num_attention_heads=2, intermediate_size=512)


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return Whole(GPT2LMHeadModel(GPT2Config(use_cache=False)))


def swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    return Whole(SwinForImageClassification(SwinConfig(num_labels=1000)))


def llama(**sizes: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
        use_cache=False,
        **sizes,
    )
    return Whole(LlamaForCausalLM(config))


def llama_1b() -> nn.Module:
    """The shape of Llama 3.2 1B: 1.24 billion parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        return llama(vocab_size=128_256, hidden_size=2048, intermediate_size=8192)
    finally:
        torch.set_default_dtype(before)


def llama_narrow() -> nn.Module:
    """The same graph with narrow layers: 24 million parameters."""
    return llama(vocab_size=32_000, hidden_size=256, intermediate_size=1024)


BATCH_AND_LENGTH: Final = ({0: Dim("batch", min=2, max=64), 1: Dim("length", min=2, max=512)},)

PROGRAMS: Final[dict[str, Program]] = {
    "tiny": Program(tiny, (("float32", (2, 8)),), peers=("torchscript", "onnxruntime"), quick=True),
    "resnet50": Program(resnet50, (("float32", (1, 3, 64, 64)),), quick=True),
    "bert-narrow": Program(bert_narrow, (("int64", (1, 16)),), quick=True),
    "bert": Program(bert, (("int64", (1, 16)),)),
    "gpt2": Program(gpt2, (("int64", (1, 16)),)),
    "swin": Program(swin, (("float32", (1, 3, 224, 224)),)),
    "llama-1b": Program(llama_1b, (("int64", (1, 8)),), peers=("torchscript", "eager")),
    "bert-dynamic": Program(bert, (("int64", (2, 16)),), BATCH_AND_LENGTH, peers=("torchscript", "eager")),
    "llama-dynamic": Program(llama_narrow, (("int64", (2, 8)),), BATCH_AND_LENGTH, peers=("torchscript", "eager")),
    "nodes-1k": Program(lambda: chain(1_000), (("float32", (8,)),), peers=("torchscript",), quick=True),
    "nodes-10k": Program(lambda: chain(10_000), (("float32", (8,)),), peers=("torchscript",)),
    "nodes-50k": Program(lambda: chain(50_000), (("float32", (8,)),), peers=()),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(SEED)
    return PROGRAMS[name].build().eval()


def arguments(name: str) -> tuple[torch.Tensor, ...]:
    return tuple(torch.ones(shape, dtype=getattr(torch, dtype)) for dtype, shape in PROGRAMS[name].inputs)
