"""A loaded program is the program that was saved."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

import exporter
import loader
from tests.models import Case, Dynamic, Odd, Tied, cases
from tests.program_equality import assert_loaded_equal, same

CASES = cases()


def capture(case: Case) -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    return exporter.capture(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.program.safetensors"


def test_everything_that_can_be_seen_is_the_same(case: Case, path: Path) -> None:
    program = capture(case)
    exporter.save(program, path, keep_paths=True)
    assert_loaded_equal(loader.load(path, debug=True), program)


def test_a_program_of_torch_export_survives_too(case: Case, path: Path) -> None:
    program = torch.export.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes)
    exporter.save(program, path, keep_paths=True)
    assert_loaded_equal(loader.load(path, debug=True), program)


def test_a_decomposed_program_survives_too(case: Case, path: Path) -> None:
    program = capture(case).run_decompositions({})
    exporter.save(program, path, keep_paths=True)
    loaded = loader.load(path, debug=True)
    assert loaded.dialect == program.dialect
    assert loaded.graph_module.code == program.graph_module.code
    assert loaded.graph_signature == program.graph_signature


def test_saving_a_loaded_program_gives_the_same_bytes(case: Case, path: Path, tmp_path: Path) -> None:
    exporter.save(capture(case), path)
    second = tmp_path / "second.program.safetensors"
    exporter.save(loader.load(path, debug=True), second)
    assert second.read_bytes() == path.read_bytes()


def test_outputs_are_equal_bit_for_bit(case: Case, path: Path) -> None:
    program = capture(case)
    exporter.save(program, path)
    state = copy.deepcopy((program.state_dict, program.constants))
    torch.manual_seed(1)
    expected = program.module()(*copy.deepcopy(case.args), **case.kwargs)
    for load in (lambda: loader.load(path).module(), lambda: loader.load_module(path)):
        torch.manual_seed(1)
        assert same(pytree.tree_flatten(load()(*case.args, **case.kwargs)), pytree.tree_flatten(expected))
    assert state  # the program's own state has moved on; the loaded ones began from the file


def test_a_loaded_program_works_as_a_captured_one(case: Case, path: Path) -> None:
    exporter.save(capture(case), path)
    loaded = loader.load(path)
    loaded.run_decompositions()
    copy.deepcopy(loaded.graph_module)
    torch.manual_seed(2)
    expected = loader.load(path).module()(*case.args, **case.kwargs)
    torch.manual_seed(2)
    compiled = torch.compile(loader.load(path).module(), backend="eager")
    assert same(pytree.tree_leaves(compiled(*case.args, **case.kwargs)), pytree.tree_leaves(expected))


def test_a_loaded_program_can_be_captured_again(path: Path) -> None:
    case = CASES["dynamic"]()
    exporter.save(capture(case), path)
    again = exporter.capture(loader.load(path).module(), case.args, dynamic_shapes=case.dynamic_shapes)
    assert [node.target for node in again.graph.nodes if node.op == "call_function"]


def test_stack_traces_come_only_on_request(path: Path) -> None:
    exporter.save(capture(CASES["tied"]()), path)
    with_traces = [node.meta.get("stack_trace") for node in loader.load(path, debug=True).graph.nodes]
    assert any(trace and "self.head(self.embedding(ids))" in trace for trace in with_traces)
    assert not any("stack_trace" in node.meta for node in loader.load(path).graph.nodes)


def test_weights_are_mapped_and_ties_are_kept(path: Path) -> None:
    exporter.save(capture(CASES["tied"]()), path)
    before = path.read_bytes()
    state = loader.load(path).state_dict
    assert state["embedding.weight"].data_ptr() == state["head.weight"].data_ptr()
    with torch.no_grad():
        state["embedding.weight"].zero_()
    assert state["head.weight"].abs().sum() == 0
    assert path.read_bytes() == before, "writing to a loaded weight must not reach the file"
    assert loader.load(path).state_dict["head.weight"].abs().sum() > 0


def test_elements_lie_at_multiples_of_their_size(path: Path) -> None:
    """safetensors aligns to eight bytes; complex numbers of sixteen that lie elsewhere crash torch's kernels."""

    class Model(torch.nn.Module):
        def __init__(self, padding: int) -> None:
            super().__init__()
            self.register_buffer("a", torch.ones(padding, dtype=torch.float64))
            self.register_buffer("b", torch.ones(5, dtype=torch.complex128))

        def forward(self) -> torch.Tensor:
            return self.b + self.a.sum()

    for padding in (1, 2):
        exporter.save(exporter.capture(Model(padding)), path)
        state = loader.load(path).state_dict
        assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in state.values())


def test_without_mmap_the_file_may_go(path: Path) -> None:
    exporter.save(capture(CASES["tied"]()), path)
    module = loader.load_module(path, mmap=False)
    expected = loader.load_module(path)(torch.tensor([1, 2]), bias=torch.zeros(10))
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(module(torch.tensor([1, 2]), bias=torch.zeros(10)), expected)


def test_any_reader_of_safetensors_finds_the_weights(path: Path) -> None:
    from safetensors.torch import load_file

    module = Tied()
    exporter.save(exporter.capture(module, (torch.tensor([1]),), {"bias": torch.ones(10)}), path)
    stored = load_file(path)
    assert torch.equal(stored["embedding.weight"], module.embedding.weight)
    assert torch.equal(stored["__constants__/scale"], module.scale)


def test_a_weight_that_others_would_misread_is_not_under_its_name(path: Path) -> None:
    from safetensors.torch import load_file

    exporter.save(exporter.capture(Odd(), (torch.ones(2, 4),)), path)
    stored = load_file(path)
    assert "transposed" not in stored
    assert stored["__storages__/transposed"].dtype == torch.uint32
    assert stored["__storages__/transposed"].numel() == 24
    assert torch.equal(loader.load(path).state_dict["transposed"], Odd().transposed)


def test_gradients_flow_in_a_loaded_module(path: Path) -> None:
    exporter.save(capture(CASES["training"]()), path)
    module = loader.load_module(path)
    module(torch.ones(3, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert list(module.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_several_methods_share_their_weights(path: Path) -> None:
    module = Dynamic()
    args = (torch.ones(6, 4), torch.ones(3))
    programs = {"one": exporter.capture(module, args), "other": exporter.capture(module, args)}
    size = exporter.save(programs, path)
    assert size < 2 * exporter.save(programs["one"], path.with_name("single"))
    one, other = (loader.load(path, method=name) for name in programs)
    assert torch.equal(one.state_dict["linear.weight"], other.state_dict["linear.weight"])


def test_a_module_without_weights_or_inputs(path: Path) -> None:
    class Constant(torch.nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.ones(2)

    exporter.save(exporter.capture(Constant()), path)
    assert torch.equal(loader.load_module(path)(), torch.ones(2))
