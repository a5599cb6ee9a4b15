"""Archives without weights, weights given at load, and weights swapped while a program stays loaded."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch._subclasses import FakeTensorMode
from typer.testing import CliRunner

import archive
import exporter
import loader
from archive.cli import app
from loader.parts import take_apart
from schema.errors import AccessError, ArchiveError, FormatError, UnsupportedError, UsageError, WeightsError
from tests.rewriting import rewrite
from tests.test_tensors import Scaled, assert_exact

X = (torch.tensor([1, 2]),)


class Model(nn.Module):
    """Tied, transposed, sliced and expanded weights, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.turned = nn.Parameter(torch.randn(5, 4).t())
        both = torch.randn(8)
        self.first, self.second = nn.Parameter(both[:4]), nn.Parameter(both[4:])
        self.register_buffer("scale", torch.randn(1).expand(4))
        self.register_buffer("shift", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(self.embed(x)) * self.scale + self.shift + self.turned[:, 0]
        return self.head(y + self.first - self.second)


def make(seed: int) -> Model:
    torch.manual_seed(seed)
    return Model().eval()


MODEL, OTHER = make(0), make(1)
PROGRAM = exporter.capture(MODEL, X)
STATE, OTHER_STATE = ({k: v.detach().clone() for k, v in each.state_dict().items()} for each in (MODEL, OTHER))
FILE_STATE = {k: v.contiguous() for k, v in STATE.items() if k != "head.weight"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as archives with and without weights, and its weights in every form that a file can have."""
    folder = tmp_path_factory.mktemp("weights")
    exporter.save(PROGRAM, folder / "full", record_outputs=True)
    exporter.save(PROGRAM, folder / "bare", record_outputs=True, weights=False)
    save_file(FILE_STATE, folder / "model.safetensors")
    names = sorted(FILE_STATE)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: FILE_STATE[name] for name in held}, folder / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def same_outputs(module: Any, model: nn.Module) -> bool:
    return torch.equal(module(*X), model(*X))


class TestWithout:
    def test_weights_are_not_in_the_file_and_the_rest_is(self, folder: Path) -> None:
        with archive.open_archive(folder / "bare") as file:
            stored = {name for name in file.entries if not name.startswith("__program__/forward/")}
        assert stored == {"__constants__/shift", "__program__/manifest", "__program__/manifest.sha256"}
        assert "__program__/forward/example/0" in load_file(folder / "bare")

    def test_a_loaded_program_gives_the_same_bytes_again(self, folder: Path, tmp_path: Path) -> None:
        program = loader.load(folder / "bare", weights=STATE, debug=True)
        exporter.save(program, tmp_path / "again", record_outputs=True, weights=False)
        assert (tmp_path / "again").read_bytes() == (folder / "bare").read_bytes()

    def test_loading_it_alone_names_what_to_give(self, folder: Path) -> None:
        with pytest.raises(
            WeightsError, match=r"leaves 8 weights out \(.*linear.weight.*pass weights= \(--weights FILE"
        ):
            loader.load(folder / "bare")

    def test_export_and_several_methods_leave_them_out_too(self, tmp_path: Path) -> None:
        linear = nn.Linear(2, 2)
        calls = {"forward": exporter.Call((torch.ones(1, 2),)), "again": exporter.Call((torch.ones(2, 2),))}
        exporter.export(linear, (torch.ones(1, 2),), path=tmp_path / "one", weights=False)
        programs = {name: exporter.capture(linear, call.args) for name, call in calls.items()}
        exporter.save(programs, tmp_path / "two", weights=False)
        for path, method in ((tmp_path / "one", "forward"), (tmp_path / "two", "again")):
            module = loader.load_module(path, method=method, weights=linear.state_dict())
            assert module.weight.data_ptr() == linear.weight.data_ptr(), "copied"

    def test_fake_weights_can_only_be_left_out(self, tmp_path: Path) -> None:
        real = nn.Linear(2, 2)
        program = exporter.capture(real, (torch.ones(1, 2),))
        with FakeTensorMode() as mode:
            for name, value in program.state_dict.items():
                program.state_dict[name] = mode.from_tensor(value)
        with pytest.raises(UnsupportedError, match=r"fake tensor has no memory.*leave the weights out"):
            exporter.save(program, tmp_path / "x", examples=False)
        exporter.save(program, tmp_path / "x", examples=False, weights=False)
        module = loader.load_module(tmp_path / "x", weights=real.state_dict())
        assert torch.equal(module(torch.ones(1, 2)), real(torch.ones(1, 2)))

    def test_tensors_on_the_meta_device_come_back_there_or_as_weights(self, tmp_path: Path) -> None:
        program = exporter.capture(nn.Linear(2, 2, device="meta"), (torch.ones(1, 2, device="meta"),))
        exporter.save(program, tmp_path / "x")
        assert loader.load(tmp_path / "x").state_dict["weight"].is_meta
        real = nn.Linear(2, 2)
        module = loader.load_module(tmp_path / "x", weights=real.state_dict(), device={"meta": "cpu"})
        assert torch.equal(module(torch.ones(1, 2)), real(torch.ones(1, 2)))

    def test_a_constant_that_needs_more_than_the_weights_is_refused(self, tmp_path: Path) -> None:
        class Slices(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                memory = torch.ones(4)
                self.weight = nn.Parameter(memory[:2])
                self.register_buffer("rest", memory[2:], persistent=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.weight + self.rest

        program = exporter.capture(Slices(), (torch.ones(2),))
        with pytest.raises(UnsupportedError, match=r"shares memory with weight.*__constants__/rest"):
            exporter.save(program, tmp_path / "x", weights=False)


class TestGiven:
    @pytest.mark.parametrize("target", ["bare", "full"])
    @pytest.mark.parametrize("source", ["model.safetensors", "model.safetensors.index.json", "full", "mapping"])
    def test_every_source_gives_the_same_program(self, folder: Path, target: str, source: str) -> None:
        weights = STATE if source == "mapping" else folder / source
        module = loader.load_module(folder / target, weights=weights)
        program = loader.load(folder / target, weights=weights)
        assert same_outputs(module, MODEL)
        assert same_outputs(program.module(), MODEL)
        state = PROGRAM.state_dict
        assert list(program.state_dict) == list(state)
        for name, tensor in program.state_dict.items():
            assert tensor.stride() == state[name].stride()
            assert (type(tensor), tensor.requires_grad) == (type(state[name]), state[name].requires_grad)
        storages = {name: tensor.untyped_storage().data_ptr() for name, tensor in program.state_dict.items()}
        assert storages["embed.weight"] == storages["head.weight"]
        assert storages["first"] == storages["second"]

    def test_they_stand_in_for_those_of_the_archive(self, folder: Path) -> None:
        assert same_outputs(loader.load_module(folder / "full", weights=OTHER_STATE), OTHER)

    def test_copies_are_made_when_asked_for(self, folder: Path) -> None:
        weights = {name: value.clone() for name, value in STATE.items()}
        module = loader.load_module(folder / "bare", weights=weights, mmap=False)
        weights["linear.weight"].zero_()
        assert same_outputs(module, MODEL)

    def test_elements_may_come_as_files_carry_them(self, tmp_path: Path) -> None:
        class Complex(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("w", torch.tensor([1 + 2j], dtype=torch.complex128))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.w

        exporter.export(Complex(), (torch.ones(1),), path=tmp_path / "x", weights=False)
        for given in (torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.tensor([3 + 4j], dtype=torch.complex128)):
            assert loader.load_module(tmp_path / "x", weights={"w": given})(torch.ones(1)).item() == 3 + 4j

    def test_every_mismatch_is_told_in_one_error(self, folder: Path) -> None:
        wrong: dict[str, Any] = {**STATE, "first": torch.ones(3), "linear.weight": torch.ones(4, 4).half()}
        wrong |= {"scale": [1.0], "more": torch.ones(1), "second": torch.ones(4, device="meta")}
        del wrong["linear.bias"]
        with pytest.raises(WeightsError) as caught:
            loader.load(folder / "bare", weights=wrong)
        for part in (
            "1 missing (linear.bias)",
            "1 not in the program (more)",
            "1 of another shape (first is [3] instead of [4])",
            "3 of another type (second is without memory, linear.weight is float16 instead of float32, "
            "scale is a list)",
        ):
            assert part in str(caught.value)
        assert caught.value.remedy

    def test_many_names_are_cut_short(self, folder: Path) -> None:
        with pytest.raises(WeightsError, match=r"100 not in the program \(x0, x1, x10, x11, x12, x13, …\)"):
            loader.load(folder / "bare", weights={**STATE, **{f"x{i}": torch.ones(1) for i in range(100)}})

    @pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
    def test_one_of_tied_names_is_enough(self, folder: Path, name: str) -> None:
        weights = {key: value for key, value in STATE.items() if key != name}
        assert same_outputs(loader.load_module(folder / "bare", weights=weights), MODEL)

    def test_tied_names_that_differ_are_told(self, folder: Path) -> None:
        with pytest.raises(WeightsError, match=r"1 unlike what shares memory with them \(head.weight\)"):
            loader.load(folder / "bare", weights={**STATE, "head.weight": torch.zeros(7, 4)})
        with pytest.raises(WeightsError, match=r"unlike what shares memory with them \(scale\)"):
            loader.load(folder / "bare", weights={**STATE, "scale": torch.arange(4.0)})

    def test_what_is_neither_a_path_nor_a_mapping_is_refused(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="weights are of type int"):
            loader.load(folder / "bare", weights=1)  # type: ignore[arg-type]


class TestSwapped:
    @pytest.mark.parametrize("load", [loader.load_module, loader.load])
    def test_what_is_loaded_sees_the_new_ones(self, folder: Path, load: Any) -> None:
        loaded = load(folder / "full")
        module = loaded if isinstance(loaded, nn.Module) else loaded.module()
        places = {name: tensor.data_ptr() for name, tensor in loaded.state_dict.items()} if module is not loaded else {}
        loader.swap_weights(loaded, OTHER_STATE)
        assert same_outputs(module, OTHER)
        loader.swap_weights(loaded, folder / "model.safetensors")
        assert same_outputs(module, MODEL)
        assert all(loaded.state_dict[name].data_ptr() == place for name, place in places.items())
        assert same_outputs(loader.load_module(folder / "full"), MODEL), "the file has changed"

    def test_nothing_changes_unless_all_fit(self, folder: Path) -> None:
        module = loader.load_module(folder / "full")
        with pytest.raises(WeightsError, match="missing"):
            loader.swap_weights(module, {key: value for key, value in OTHER_STATE.items() if key != "scale"})
        with pytest.raises(WeightsError, match="unlike"):
            loader.swap_weights(module, {**OTHER_STATE, "head.weight": torch.zeros(7, 4)})
        assert same_outputs(module, MODEL)

    def test_a_module_can_be_given_its_own_tensors_in_another_order(self) -> None:
        pair = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
        first, second = (each.weight.detach().clone() for each in pair)
        loader.swap_weights(pair, {"0.weight": pair[1].weight, "1.weight": pair[0].weight})
        assert torch.equal(pair[0].weight, second)
        assert torch.equal(pair[1].weight, first)

    def test_a_program_without_memory_is_refused(self, folder: Path) -> None:
        program = loader.load(folder / "bare", device="meta")
        with pytest.raises(UsageError, match="has no plain memory"):
            loader.swap_weights(program, STATE)


def composites(factor: float) -> dict[str, torch.Tensor]:
    """Weights that are no plain views of memory: of a class of their own, sparse, conjugated, negated."""
    numbers = torch.complex(torch.arange(6.0), torch.arange(6.0) + 1).view(2, 3) * factor
    return {
        "wrapper": nn.Parameter(scaled(factor)),
        "nested": Scaled(scaled(factor), torch.tensor(factor), {}),
        "coordinates": torch.eye(2).to_sparse() * factor,
        "rows": torch.sparse_csr_tensor([0, 1, 2], [0, 1], [factor, factor], (2, 2)),
        "conjugate": numbers.conj(),
        "turned": numbers.clone().mH,
        "negative": torch._neg_view(torch.arange(3.0) * factor),
        "shared": (both := numbers.clone()),
        "shared_conjugate": both.conj(),
    }


def scaled(factor: float) -> Scaled:
    return Scaled(torch.tensor([1, 2, 3], dtype=torch.int8), torch.tensor(factor), {"block": torch.Size([1, 3])})


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program with the one weights, with the others, and with none."""
    folder = tmp_path_factory.mktemp("composites")
    program = exporter.capture(nn.ReLU(), (torch.ones(1, 2),))
    for name, factor in (("one", 1.0), ("other", 2.0)):
        program.state_dict.update(composites(factor))
        program.state_dict["tied"] = program.state_dict["wrapper"]
        exporter.save(program, folder / name)
    exporter.save(program, folder / "bare", weights=False)
    return folder


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta", "ignore:Sparse invariant checks")
class TestComposites:
    ALLOWED: ClassVar[dict[str, Any]] = {"allow_classes": [Scaled.__module__]}

    def load(self, path: Path, **options: Any) -> torch.export.ExportedProgram:
        return loader.load(path, **self.ALLOWED, **options)

    def test_are_left_out(self, odd: Path, tmp_path: Path) -> None:
        with archive.open_archive(odd / "bare") as file:
            assert {name for name in file.entries if not name.startswith("__program__/")} == set()
        bare, full = archive.inspect(odd / "bare"), archive.inspect(odd / "one")
        assert {each.name for each in bare.tensors if each.absent and each.role != "part"} == {*composites(1.0), "tied"}
        assert (bare.absent.tensors, full.absent.tensors) == (8, 0)
        with pytest.raises(WeightsError, match="leaves 10 weights out"):
            self.load(odd / "bare")
        report = loader.verify(odd / "bare", **self.ALLOWED)
        assert report.ok, report.checks

    @pytest.mark.parametrize("target", ["bare", "one"])
    @pytest.mark.parametrize("source", ["mapping", "archive", "file of parts"])
    def test_are_given(self, target: str, source: str, odd: Path, tmp_path: Path) -> None:
        weights: Any = composites(2.0) if source == "mapping" else odd / "other"
        if source == "file of parts":
            parts = take_apart(weights := composites(2.0)).tensors
            save_file(
                {name: part.detach().clone().resolve_conj().resolve_neg().contiguous() for name, part in parts.items()},
                tmp_path / "x",
            )
            weights = tmp_path / "x"
        loaded = self.load(odd / target, weights=weights, debug=True)
        for name, expected in self.load(odd / "other").state_dict.items():
            assert_exact(loaded.state_dict[name], expected, name)
        assert loaded.state_dict["tied"] is loaded.state_dict["wrapper"]
        for name in ("other", "bare"):
            exporter.save(loaded, tmp_path / "again", weights=name == "other")
            assert (tmp_path / "again").read_bytes() == (odd / name).read_bytes()

    @pytest.mark.parametrize(
        ("name", "make", "message"),
        [
            ("wrapper", lambda: torch.ones(3), "wrapper is Tensor instead of Scaled"),
            (
                "wrapper",
                lambda: Scaled(torch.ones(3, dtype=torch.int8), torch.tensor(1.0), {}),
                "wrapper is Scaled of another context",
            ),
            (
                "wrapper",
                lambda: Scaled(torch.ones(2, dtype=torch.int8), torch.tensor(1.0), {}),
                "__parts__/wrapper/data8 is .2.",
            ),
            (
                "nested",
                lambda: Scaled(torch.ones(3), torch.tensor(1.0), {}),
                "2 missing .__parts__/__parts__/nested/data8/data8",
            ),
            ("rows", lambda: torch.eye(2).to_sparse_csc(), "rows is sparse_csc instead of sparse_csr"),
            ("rows", lambda: torch.ones(2, 2).to_sparse_csr(), "__parts__/rows/col_indices is .4. instead of .2."),
            (
                "rows",
                lambda: torch.sparse_csr_tensor([0, 1, 2], [0, 1], [1.0, 1.0], (2, 3)),
                "rows is .2, 3. instead of .2, 2.",
            ),
        ],
    )
    def test_of_another_kind_are_refused(self, name: str, make: Any, message: str, odd: Path) -> None:
        for load in (self.load, partial(loader.load_module, **self.ALLOWED)):
            with pytest.raises(WeightsError, match=message):
                load(odd / "bare", weights={**composites(1.0), name: make()})

    def test_of_sparse_ones_the_indices_are_checked(self, odd: Path) -> None:
        parts = dict(take_apart(composites(1.0)).tensors)
        parts["__parts__/rows/col_indices"] = torch.tensor([0, 7])
        with pytest.raises(FormatError, match="not a valid sparse tensor"):
            self.load(odd / "bare", weights=parts)

    def test_are_swapped_but_for_sparse_ones(self, odd: Path) -> None:
        with pytest.raises(UsageError, match="coordinates has no plain memory to copy into"):
            loader.swap_weights(self.load(odd / "one"), composites(2.0))
        program = self.load(odd / "one")
        dense = {key: value for key, value in composites(2.0).items() if key not in ("coordinates", "rows")}
        for name in ("coordinates", "rows"):
            del program.state_dict[name]
        place = program.state_dict["wrapper"].data8.data_ptr()
        loader.swap_weights(program, dense)
        for name, expected in dense.items():
            assert_exact(program.state_dict[name], expected, name)
        assert program.state_dict["wrapper"].data8.data_ptr() == place


class TestTold:
    def test_verify_says_what_it_could_not_check(self, folder: Path) -> None:
        report = loader.verify(folder / "bare")
        last = report.checks[-1]
        assert report.ok
        assert (last.name, last.ok) == ("forward: weights", None)
        assert "nor the recorded example run; pass weights=" in last.detail
        assert "forward: recorded example" not in [check.name for check in report.checks]

    def test_verify_runs_the_example_with_given_weights(self, folder: Path) -> None:
        good = loader.verify(folder / "bare", weights=folder / "model.safetensors")
        assert [check.ok for check in good.checks] == [True] * 7
        assert good.checks[-1].name == "forward: recorded example"
        assert not loader.verify(folder / "bare", weights=OTHER_STATE).ok
        unfit = loader.verify(folder / "bare", weights={}).checks[-1]
        assert (unfit.name, unfit.ok) == ("forward: weights", False)

    def test_inspect_says_that_they_are_not_there(self, folder: Path) -> None:
        bare, full = archive.inspect(folder / "bare"), archive.inspect(folder / "full")
        assert bare.absent.tensors == 7
        assert full.absent.tensors == 0
        assert bare.parameters == full.parameters
        assert {tensor.name for tensor in bare.tensors if tensor.absent} == set(STATE)

    def test_the_command_line_leaves_them_out_and_takes_them(self, folder: Path) -> None:
        run = CliRunner().invoke
        bare, weights = str(folder / "bare"), str(folder / "model.safetensors.index.json")
        assert "not in the file: 80 in 7 tensors" in run(app, ["inspect", bare]).stdout
        assert run(app, ["verify", bare]).stdout.splitlines()[-1].startswith("unknown  forward: weights")
        assert run(app, ["verify", bare, "--weights", weights]).exit_code == 0
        assert run(app, ["run", bare, "--example", "--weights", weights]).exit_code == 0
        assert isinstance(run(app, ["run", bare, "--example"]).exception, WeightsError)
        made = run(app, [*EXPORT, "-o", f"{bare}2", "--no-weights"])
        assert "weights: left out" in made.stdout, made.output
        assert loader.load_module(f"{bare}2", weights=STATE)


EXPORT = ["export", "tests.test_weights:MODEL", "-i", "x=i64[2]=ones"]
INDEX = {"weight_map": {"a": "a.safetensors"}}


class TestHostile:
    @pytest.mark.parametrize(
        "shard",
        [
            "../a.safetensors",
            "/etc/a.safetensors",
            "x/a.safetensors",
            "..",
            "",
            "a.bin",
            "x\\a.safetensors",
            "\0.safetensors",
        ],
    )
    def test_an_index_names_only_files_beside_it(self, folder: Path, tmp_path: Path, shard: str) -> None:
        path = tmp_path / "index.json"
        path.write_text(json.dumps({"weight_map": {"a": shard}}))
        with pytest.raises(FormatError, match="no name of a safetensors file beside it"):
            loader.load(folder / "full", weights=path)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            "{" * 100_000,
            '{"weight_map": []}',
            '{"weight_map": {"a": 1}}',
            '{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}',
            "\xff",
        ],
    )
    def test_an_index_that_is_none_is_refused(self, folder: Path, tmp_path: Path, text: str) -> None:
        path = tmp_path / "index.json"
        path.write_text(text, encoding="latin-1")
        with pytest.raises(FormatError, match="is not an index of shards"):
            loader.load(folder / "full", weights=path)

    def test_an_index_is_not_read_past_its_limit(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("archive.weight_files.MAX_INDEX_BYTES", 10)
        path = tmp_path / "index.json"
        path.write_text(json.dumps(INDEX))
        with pytest.raises(FormatError, match="more than 10"):
            loader.load(folder / "full", weights=path)

    def test_shards_that_are_not_there_or_hold_something_else_are_told(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "index.json"
        path.write_text(json.dumps(INDEX))
        with pytest.raises(AccessError, match=r"a.safetensors: No such file"):
            loader.load(folder / "full", weights=path)
        save_file({"b": torch.ones(1)}, tmp_path / "a.safetensors")
        with pytest.raises(FormatError, match=r"says that a.safetensors holds 'a', which it does not"):
            loader.load(folder / "full", weights=path)

    def test_files_of_other_kinds_are_named(self, folder: Path, tmp_path: Path) -> None:
        torch.save(STATE, tmp_path / "x.bin")
        with pytest.raises(FormatError, match=r"a zip file.*not a safetensors file; load it with torch, then pass its"):
            loader.load(folder / "full", weights=tmp_path / "x.bin")
        with pytest.raises(AccessError, match="it is a folder"):
            loader.load(folder / "full", weights=tmp_path)

    def test_every_truncation_of_a_file_is_refused(self, folder: Path, tmp_path: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        for length in range(0, len(data), 7):
            (tmp_path / "x").write_bytes(data[:length])
            with pytest.raises(FormatError):
                loader.load_module(folder / "bare", weights=tmp_path / "x")

    def test_a_type_that_no_program_has_is_a_mismatch(self, folder: Path, tmp_path: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (tmp_path / "x").write_bytes(data.replace(b'"dtype":"F32"', b'"dtype":"F9"', 1).replace(b"}}", b"}} ", 1))
        with pytest.raises(WeightsError, match="is F9"):
            loader.load(folder / "bare", weights=tmp_path / "x")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m["storages"][0].update(nbytes=2**50), "1125899906842624 bytes for weights of"),
            (lambda m: m["storages"][0].update(nbytes=-1), "-1 bytes"),
            (lambda m: m["storages"][0].update(blake3=b"x" * 32), "absent, but in the file or with a digest"),
            (lambda m: m["storages"][0].update(name="__constants__/shift"), "is there twice"),
            (lambda m: m["storages"][0].pop("absent"), "described, but not in the file"),
            (lambda m: m.pop("features"), "feature 'absent' does not fit"),
            (lambda m: m["methods"][0].pop("state"), "absent, and no weight|without a tensor"),
        ],
    )
    def test_what_an_archive_says_of_absent_bytes_is_checked(
        self, folder: Path, tmp_path: Path, change: Any, message: str
    ) -> None:
        path = rewrite(folder / "bare", tmp_path / "x", lambda _, manifest: change(manifest))
        with pytest.raises(ArchiveError, match=message):
            loader.load_module(path, weights=STATE if "without" not in message else {})

    def test_a_reader_that_does_not_know_of_absent_bytes_refuses_the_archive(self, folder: Path) -> None:
        with archive.open_archive(folder / "bare") as bare, archive.open_archive(folder / "full") as full:
            assert bare.manifest.features == ["absent"]
            assert full.manifest.features == []
