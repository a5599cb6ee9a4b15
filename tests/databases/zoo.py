"""A zoo of `transformers`: what of its architectures runs with a small configuration and plain inputs.

Nothing is said about single architectures: a size is set where a configuration has a field of that name, an input is
given where ``forward`` has an argument of that name. What runs in none of a few ways to do so is no case.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library itself, on import
    import transformers
    from transformers.integrations.heterogeneity.configuration_utils import AmbiguousGlobalPerLayerAttributeError
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

_SIZES = {
    "attention_hidden_size": 32,
    "block_size": 8,
    "bottleneck_size": 16,
    "codebook_dim": 8,
    "codebook_size": 32,
    "cross_attention_dim": 32,
    "d_ff": 64,
    "d_inner": 64,
    "d_kv": 8,
    "d_model": 32,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "decoder_hidden_size": 32,
    "decoder_intermediate_size": 64,
    "decoder_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_num_hidden_layers": 1,
    "dim": 32,
    "embed_dim": 16,
    "embedding_size": 32,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "encoder_hidden_dim": 32,
    "encoder_layers": 1,
    "expert_capacity": 8,
    "expert_intermediate_size": 32,
    "ffn_dim": 64,
    "ffn_hidden_size": 64,
    "ffn_intermediate_size": 64,
    "head_dim": 16,
    "hidden_dim": 32,
    "hidden_size": 32,
    "image_size": 64,
    "intermediate_size": 64,
    "kv_lora_rank": 16,
    "lru_width": 32,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "max_position_embeddings": 64,
    "max_source_positions": 32,
    "max_target_positions": 64,
    "moe_intermediate_size": 32,
    "n_groups": 1,
    "n_routed_experts": 4,
    "neck_hidden_sizes": 16,
    "num_attention_heads": 4,
    "num_codevector_groups": 2,
    "num_codevectors_per_group": 8,
    "num_decoder_layers": 1,
    "num_encoder_layers": 1,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "num_layers": 2,
    "num_local_experts": 4,
    "num_mel_bins": 16,
    "num_queries": 6,
    "out_hidden_size": 32,
    "patch_size": 4,
    "pooler_hidden_size": 32,
    "projection_dim": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "shared_expert_intermediate_size": 32,
    "ssm_state_size": 8,
    "state_size": 8,
    "text_embed_dim": 32,
    "v_head_dim": 8,
    "vision_embed_dim": 32,
    "vocab_size": 96,
    "window_size": 2,
}
"""Small sizes, by field of a configuration."""

_SEQUENCES: dict[str, Callable[[int], list[int]]] = {
    "depths": lambda stages: [1] * stages,
    "embed_dim": lambda stages: [16 * (stage + 1) for stage in range(stages)],
    "embed_dims": lambda stages: [16 * (stage + 1) for stage in range(stages)],
    "hidden_sizes": lambda stages: [16 * (stage + 1) for stage in range(stages)],
    "num_attention_heads": lambda stages: [2] * stages,
    "num_heads": lambda stages: [2] * stages,
}
"""The same for fields that hold one size for each stage."""

_SHARES = (0, 16, 4, 1)
"""Ways to make a configuration small, of which the first is taken that gives a model that runs.

Sizes are those above (0), or a share of the default, so that it still holds what the configuration says of its sizes:
that rotary sections add up to the size of a head, say. The depth and the vocabulary are small in any case.
"""

_WITH_HEAD = ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "MASKED_LM", "CAUSAL_LM")
"""Kinds of model to take instead of the base model, which they contain; the first that an architecture has."""

_INPUTS: dict[str, Callable[[Any], list[torch.Tensor]]] = {
    "attention_mask": lambda _: [torch.ones(_BATCH, _LENGTH, dtype=torch.int64)],
    "decoder_input_ids": lambda config: [_tokens(config)],
    "input_features": lambda config: _either_way_round(_mels(config), 2 * _find(config, "max_source_positions", 32)),
    "input_ids": lambda config: [_tokens(config)],
    "input_values": lambda config: [
        torch.rand(_BATCH, _SAMPLES),
        torch.rand(_BATCH, 1, _SAMPLES),
        torch.rand(_BATCH, _find(config, "max_length", _LENGTH), _mels(config)),
    ],
    "pixel_values": lambda config: [_image(config), _image(config, _find(config, "num_frames", 2))],
}
"""The shapes that an input of a name may have, by argument of ``forward``."""

_FURTHER_INPUTS: dict[str, Callable[[Any], list[torch.Tensor]]] = {
    "bbox": lambda _: [torch.zeros(_BATCH, _LENGTH, 4, dtype=torch.int64)],
    "grid_thw": lambda _: [torch.tensor([[1, 4, 4]])],
    "hidden_states": lambda config: [torch.rand(16, _patch_volume(config))],
    "input_features_mask": lambda config: [
        torch.ones(_BATCH, 2 * _find(config, "max_source_positions", 32), dtype=torch.int64)
    ],
    "merge_sizes": lambda _: [torch.ones(1, dtype=torch.int64)],
    "past_values": lambda config: [
        torch.rand(_BATCH, _find(config, "context_length", 32), _find(config, "num_input_channels", 1)),
        torch.rand(_BATCH, _find(config, "context_length", 32)),
    ],
    "pixel_values": lambda config: [torch.rand(16, _patch_volume(config)), *_INPUTS["pixel_values"](config)],
    "pixel_values_videos": lambda config: [_image(config, _find(config, "num_frames", 2))],
    "visual_feats": lambda config: [torch.rand(_BATCH, _LENGTH, _find(config, "visual_feat_dim", 32))],
    "visual_pos": lambda _: [torch.rand(_BATCH, _LENGTH, 4)],
}
"""Those that are given where it does not run without."""

_MOST_PARAMETERS = 30_000_000
_BATCH, _LENGTH, _SAMPLES = 2, 8, 1600


@cache
def model_types() -> dict[str, str]:
    """Every architecture that has an auto class, and the class of its model."""
    kinds = [*(f"MODEL_FOR_{kind}_MAPPING_NAMES" for kind in _WITH_HEAD), "MODEL_MAPPING_NAMES"]
    found = dict[str, str]()
    for kind in reversed(kinds):
        found |= {key: _names(name)[0] for key, name in getattr(modeling_auto, kind).items()}
    return {key: found[key] for key in modeling_auto.MODEL_MAPPING_NAMES}


def _names(classes: str | Sequence[str]) -> Sequence[str]:
    """The classes that an architecture has in a mapping."""
    return [classes] if isinstance(classes, str) else classes


def build(model_type: str) -> tuple[torch.nn.Module, dict[str, Any]] | None:
    """Build a small model with random weights, and inputs that it accepts.

    Args:
        model_type: A key of :func:`model_types`.

    Returns:
        The model in evaluation, and keyword arguments; None if it does not run like this.
    """
    names = dict.fromkeys((model_types()[model_type], *_names(modeling_auto.MODEL_MAPPING_NAMES[model_type])))
    models = (_model(model_type, name, share) for share in _SHARES for name in names)
    built = filter(None, models)
    return next(((model, inputs) for model in built for inputs in _inputs(model) if _runs(model, inputs)), None)


def _model(model_type: str, name: str, share: int) -> torch.nn.Module | None:
    try:
        config, kind = _tiny(CONFIG_MAPPING[model_type], share), getattr(transformers, name)
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in kind(config).parameters())
        return kind(config).eval() if parameters <= _MOST_PARAMETERS else None
    except Exception:  # sizes that contradict each other, a package that is not installed
        return None


def _tiny(kind: Any, share: int) -> Any:
    default = kind()
    fields = inspect.signature(kind.__init__).parameters
    sizes = {field: _size(kind, field, _get(default, field), share) for field in fields}
    parts = {name: type(_get(default, name)) for name in kind.sub_configs}
    small = {
        name: _tiny(part, share) for name, part in parts.items() if issubclass(part, transformers.PreTrainedConfig)
    }
    known = {field: size for field, size in sizes.items() if size is not None}
    if default.to_dict().get("num_key_value_heads", 0) == default.to_dict().get("num_attention_heads"):
        known["num_key_value_heads"] = known["num_attention_heads"]
    return kind(**known, **small)


def _get(config: Any, field: str) -> Any:
    """A field of a configuration; None where there is none, or one for each layer."""
    try:
        return getattr(config, field, None)
    except AmbiguousGlobalPerLayerAttributeError:
        return None


def _size(kind: Any, field: str, default: Any, share: int) -> Any:
    """The small value for a field; None leaves it as it is."""
    common = next((name for name, own in kind.attribute_map.items() if own == field and own != "num_stages"), field)
    match default:
        case bool():
            return False if field == "use_cache" else None
        case int() if field.endswith("_token_id"):
            return min(default, 1)
        case int():
            known = field if field in _SIZES else common
            return _small(known, default, share) if known in _SIZES else None
        case [int(), *_] if field in _SEQUENCES and (field == "depths" or not share):
            return _SEQUENCES[field](len(default))
        case _:
            return None


def _small(field: str, default: int, share: int) -> int:
    if not share or field.endswith(("layers", "vocab_size")):
        return _SIZES[field]
    divided = field.endswith("heads") or (default >= 256 and "head_dim" not in field)
    return max(default // share, 1) if divided else default


def _inputs(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Guess what the model takes: everything that it has an argument for, or tokens or images alone."""
    arguments = inspect.signature(model.forward).parameters
    for known in (_INPUTS, _INPUTS | _FURTHER_INPUTS):
        given = [name for name in known if name in arguments]
        if "input_ids" not in given and "attention_mask" in given:
            given.remove("attention_mask")  # of something else than text
        for alone in ("", "input_ids", "pixel_values"):
            names = [name for name in given if name.endswith(alone)]
            choices = [known[name](model.config) for name in names]
            yield from (dict(zip(names, choice, strict=True)) for choice in itertools.product(*choices))


def _runs(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> bool:
    try:
        with torch.no_grad():
            model(**inputs)
    except Exception:  # these inputs are not for this model
        return False
    return True


def _find(config: Any, field: str, otherwise: int) -> Any:
    """A field of a configuration or of the first of its parts that has it."""
    configs = [config, *(getattr(config, part, None) for part in config.sub_configs)]
    return next((value for each in configs if (value := _get(each, field)) is not None), otherwise)


def _tokens(config: Any) -> torch.Tensor:
    return torch.randint(2, _find(config, "vocab_size", 96), (_BATCH, _LENGTH))


def _patch_volume(config: Any) -> int:
    """Numbers in a patch of an image or video, which vision models of some kinds take one by one."""
    channels, patch = _find(config, "in_channels", 3), _find(config, "patch_size", 16)
    return int(channels * _find(config, "temporal_patch_size", 1) * patch**2)


def _mels(config: Any) -> int:
    return int(_find(config, "num_mel_bins", 80))


def _either_way_round(rows: int, columns: int) -> list[torch.Tensor]:
    return [torch.rand(_BATCH, rows, columns), torch.rand(_BATCH, columns, rows)]


def _image(config: Any, *frames: int) -> torch.Tensor:
    size = _find(config, "image_size", 32)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return torch.rand(_BATCH, *frames, _find(config, "num_channels", 3), height, width)
