"""Names of callables, and which of them an archive may call.

A target is written ``namespace::name.overload``: ``aten::add.Tensor``, ``higher_order::cond``. Two namespaces are not
torch's registries: ``node`` for the kinds of node that call nothing, and ``python`` for functions on numbers.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

NODE_KINDS: Final = ("node::placeholder", "node::get_attr", "node::output")

PYTHON_FUNCTIONS: Final[frozenset[str]] = frozenset(
    f"python::{module}.{name}"
    for module, names in {
        "operator": (
            *("getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "xor", "not_", "lshift", "rshift", "inv"),
        ),
        "math": ("ceil", "floor", "trunc", "sqrt", "pow", "log2"),
        "builtins": ("round", "max", "min", "pow", "abs"),
        "torch": (
            *(
                "sym_int",
                "sym_float",
                "sym_ite",
                "sym_max",
                "sym_min",
                "sym_not",
                "sym_sum",
                "sym_fresh_size",
            ),
            *(f"_sym_{name}" for name in ("sqrt", "cos", "cosh", "sin", "sinh", "tan", "tanh")),
            *(f"_sym_{name}" for name in ("asin", "acos", "atan", "log2")),
        ),
        "predispatch": (
            *("_add_batch_dim", "_remove_batch_dim", "_vmap_increment_nesting", "_vmap_decrement_nesting"),
            *("_make_dual", "_unpack_dual", "_jvp_increment_nesting", "_jvp_decrement_nesting"),
            *("_unwrap_for_grad", "_enter_dual_level", "_exit_dual_level", "lazy_load_decompositions"),
        ),
    }.items()
    for name in names
)
"""Functions of Python, and torch's own on numbers and of ``vmap`` and ``jvp``, that a node may call."""

HIGHER_ORDER: Final[frozenset[str]] = frozenset(
    {
        *("cond", "map_impl", "while_loop", "while_loop_stack_output", "scan", "associative_scan"),
        *("invoke_subgraph", "invoke_quant", "invoke_quant_packed"),
        *("wrap_with_set_grad_enabled", "wrap_with_autocast", "tag_activation_checkpoint", "wrap"),
        *("auto_functionalized", "auto_functionalized_v2", "with_effects", "strict_mode", "run_const_graph"),
        *("flex_attention", "flex_attention_backward", "out_dtype", "_export_tracepoint", "hints_wrapper"),
        *("call_torchbind", "flat_apply"),
    }
)
"""Higher-order operators that a node may call."""

FLAT_APPLY: Final = "flat_apply"
"""The higher-order operator that calls what is no operator. A node may call it; no operator may be given it."""

AUTOGRAD_FUNCTIONS: Final[frozenset[str]] = frozenset({"torch._dynamo._trace_wrapped_higher_order_op.ModIndex"})
"""Autograd functions that it may call without permission: torch's own, which reads from a tensor by index."""

RUNS_TEXT: Final[frozenset[str]] = frozenset({"inline_asm_elementwise"})
"""Higher-order operators that run text of the program as code of a device; only where the caller names them."""

REGISTERED_LATE: Final[frozenset[str]] = frozenset({"flex_lib", "quantized_decomposed", "torch_attn", "torch_nn"})
"""Namespaces of torch's own that it registers when one of its modules is imported."""

LISTED_NAMESPACES: Final[frozenset[str]] = frozenset({"aten", "prims", "export"}) | REGISTERED_LATE
"""Namespaces of torch's own operators, of which an archive may call those on the list."""

ALLOWED_NAMESPACES: Final[frozenset[str]] = LISTED_NAMESPACES | {"higher_order", "python"}
"""Namespaces that need no permission; others only where the caller names them."""

LISTED: Final = Path(__file__).with_name("operators.txt")
"""The list: the full name of one overload in each line. ``python -m tests.operator_lock`` writes it."""

FORBIDDEN: Final[frozenset[str]] = frozenset(
    {
        # files, processes and the network
        *("aten::from_file", "aten::save"),
        # state of the process rather than of the program
        *("aten::manual_seed", "aten::seed", "aten::set_grad_enabled", "aten::_set_deterministic_algorithms"),
        *("aten::set_data", "aten::_record_function_enter", "aten::_record_function_exit"),
        *("aten::Generator", "aten::initial_seed", "aten::backward", "aten::_backward", "aten::retain_grad"),
        *("aten::record_stream", "aten::wait", "aten::_foobar"),
        *("aten::_cufft_set_plan_cache_max_size", "aten::_cufft_clear_plan_cache"),
        # what trusts sizes and offsets that it is given, and reads or writes wherever they lead
        *("aten::_reshape_alias", "aten::_reshape_alias_copy", "prims::copy_strided"),
        *("aten::_nested_view_from_buffer", "aten::_nested_view_from_buffer_copy"),
        *("aten::_nested_view_from_jagged", "aten::_nested_view_from_jagged_copy"),
        *(f"aten::_sparse_{kind}_tensor_unsafe" for kind in ("coo", "csr", "csc", "bsr", "bsc", "compressed")),
        *("aten::_sobol_engine_draw", "aten::_sobol_engine_ff_", "aten::_sobol_engine_initialize_state_"),
        *("aten::_sobol_engine_scramble_", "aten::_segment_reduce_backward"),
        # what prints
        *("aten::warn", "aten::_print", "aten::_debug_has_internal_overlap"),
    }
)
"""Operators, without their overload, that no archive may call, whatever its reader admits. That one is not here, or is
on the list, does not make it harmless: kernels trust their arguments to different degrees, and a program can compute
for as long as it likes."""


@cache
def listed_operators() -> frozenset[str]:
    """Every overload of torch's own operators that needs no permission."""
    return frozenset(LISTED.read_text(encoding="ascii").split())


def split_target(target: str) -> tuple[str, str, str]:
    """Take a target apart into namespace, name and overload; the overload is empty where there is none."""
    namespace, _, rest = target.partition("::")
    if namespace in ("node", "python", "higher_order"):
        return namespace, rest, ""
    name, _, overload = rest.partition(".")
    return namespace, name, overload
