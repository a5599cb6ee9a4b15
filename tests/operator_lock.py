"""The list of torch's operators that an archive may call: made from torch's registry, and what is left out and why.

`python -m tests.operator_lock` adds what the torch that runs it has; the list holds what 2.11, 2.13 and 2.15 have.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from loader.torch_internals import register_operators
from schema.operators import FORBIDDEN, LISTED, LISTED_NAMESPACES, REGISTERED_LATE, listed_operators

TYPES = frozenset({"t", "tVal", "Any", "Dict", "Dimname", "Future", "QScheme", "Storage", "Stream"})
"""Types of arguments and results that no program can hold."""

LEFT_OUT = {
    "tests of torch's own": r"_test_\w+|_foobar",
    "state of the process": r"_cufft_\w+|_print|_debug_\w+|_use_(cudnn|miopen)_\w+|is_vulkan_available"
    r"|_nnpack_available",
    "bookkeeping of autograd and of tensors": r"_?backward|set_data|retains?_grad|output_nr|is_leaf|_version|_fw_primal"
    r"|_propagate_xla_data|_has_compatible_shallow_copy_type|shallow_copy_data_|record_stream",
    "internals of backends": r"_copy_from(_and_resize)?|_resize_output_?|\w*_overrideable|\w*_mps\w*|mps_\w+",
    "the compiler's own, there only when it is imported": r"inductor_\w+|_low_memory_\w+|fma|prepare_softmax_online"
    r"|_unsafe_index_put_",
    "what takes addresses out of tensors": r"fbgemm_\w+|_wrapped_\w+|quantized_(lstm|gru|rnn)\w*",
    "what trusts sizes, offsets or packed bytes, and is no operator of programs": r"_segment_reduce_backward"
    r"|_sobol_\w+|_reshape_alias(_copy)?|_nested_view_from_\w+|_nested_compute_\w+|_nested_tensor_from_tensor_list"
    r"|_sparse_\w+_unsafe|_sparse_coo_tensor_with_dims(_and_tensors)?|_validate_\w+_unsafe|copy_strided"
    r"|_batch_norm_impl_index_backward|_cholesky_solve_helper|_convert_indices_\w+|_cum(max|min)_helper"
    r"|_cudnn_rnn_backward|_cudnn_init_dropout_state|miopen_rnn\w*|_thnn_\w*backward\w*|_nnpack_spatial_convolution"
    r"|_dyn_quant_\w+|_cslt_\w+|_pad_packed_sequence|_slow_conv2d_backward|_transform_bias_rescale_qkv",
}
"""Names of operators that are not on the list, as regular expressions, under the reason."""

_LEFT_OUT = re.compile("|".join(f"(?:{pattern})" for pattern in LEFT_OUT.values()))


def _is_left_out(base: str) -> bool:
    return base in FORBIDDEN or bool(_LEFT_OUT.fullmatch(base.partition("::")[2]))


def registered() -> set[str]:
    """The overloads that this torch has, those included that it registers when one of its modules is imported."""
    for namespace in REGISTERED_LATE:
        register_operators(namespace)
    return {name if "." in name else f"{name}.default" for name in torch._C._dispatch_get_all_op_names()}


def admitted() -> set[str]:
    """The overloads of this torch that belong on the list."""
    return {name for name in registered() if _belongs(*name.rsplit(".", 1))}


def _belongs(base: str, overload: str) -> bool:
    if base.partition("::")[0] not in LISTED_NAMESPACES or _is_left_out(base):
        return False
    schema: Any = torch._C._get_schema(base, "" if overload == "default" else overload)
    types = " ".join(str(each.type) for each in (*schema.arguments, *schema.returns))
    return "__torch__" not in types and not TYPES & set(re.findall(r"\w+", types))


def write() -> None:
    """Add what this torch has to the list; what is in it and does not belong there goes."""
    elsewhere = {name for name in listed_operators() - registered() if not _is_left_out(name.rpartition(".")[0])}
    LISTED.write_text("\n".join(sorted(elsewhere | admitted())) + "\n")
    listed_operators.cache_clear()


if __name__ == "__main__":
    write()
    print(f"{len(listed_operators())} overloads in {LISTED}")
