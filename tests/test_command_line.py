"""The command line, from a module's source to the outputs of its archive; and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import exporter
import loader
from archive.cli import main
from archive.cli_progress import progress
from archive.cli_target import prepare
from schema.errors import UsageError

SOURCE = """
    import torch

    class Affine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)
            torch.nn.init.ones_(self.linear.weight)
            torch.nn.init.zeros_(self.linear.bias)

        def forward(self, x, mask=None, *, scale: float = 1.0):
            return {"y": self.linear(x) * scale, "positive": x > 0}

    class Keywords(torch.nn.Module):
        def forward(self, x, **others):
            return x + others["y"]

    class NoInputs(torch.nn.Module):
        def forward(self):
            return torch.ones(2)

    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    class Methods(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Affine()

        def forward(self, x):
            return self.inner(x)

        def encode(self, x, times: int = 3):
            return x.add_(1) * times

    class Pair(torch.nn.Module):
        def forward(self, both, flag=True):
            return both["left"] + both["right"]

    x = torch.ones(2, 3)
    instance = Affine()
    number = 3
    branching = lambda: (Branching(), (x,))
    with_args = lambda: (Affine(), (x,))
    with_kwargs = lambda: (Affine(), (x,), {"scale": 2.0})
    with_shapes = lambda: (Affine(), (x,), {}, {"x": {0: torch.export.Dim("batch", max=8)}})
    as_dict = lambda: {"module": Affine(), "kwargs": {"x": x}}
    wrong_dict = lambda: {"module": Affine(), "arguments": (x,)}
    no_tuple = lambda: (Affine(), x)

    pair = lambda: (Pair(), ({"left": x, "right": x},))

    def failing():
        raise OSError("no weights here")

    def leaving():
        raise SystemExit(5)

    def sized(width, *, depth=2):
        return Affine()

    class Sized(Affine):
        def __init__(self, width):
            super().__init__()
"""

OPERATORS = """
    import torch

    @torch.library.custom_op("doubling::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    double.register_fake(torch.empty_like)

    class Doubling(torch.nn.Module):
        def forward(self, x):
            return torch.ops.doubling.double(x)

    build = lambda: (Doubling(), (torch.ones(2),))
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a module of models in it."""
    (tmp_path / "models.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "models", raising=False)
    yield tmp_path
    sys.modules.pop("models", None)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The command, in this process."""

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["archive", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return Result(done.value.code or 0, out, err)

    return call


@pytest.fixture
def model(archive) -> str:
    """An archive with a dynamic size, and recorded outputs."""
    arguments = ("-i", "x=f32[batch,3]", "-i", "scale=2.0", "-d", "batch=1..8", "--record-outputs")
    assert archive("export", "models:instance", "-o", "m.safetensors", *arguments).code == 0
    return "m.safetensors"


class TestMainJob:
    def test_export_says_what_was_captured(self, archive) -> None:
        done = archive("export", "models:with_shapes", "-o", "m.safetensors")
        assert (done.code, done.err) == (0, "")
        for part in (
            "m.safetensors: ",
            "captured forward: ",
            "in 0..8",
            "parameters: 8 in 2 tensors",
            "time: ",
            "trace",
        ):
            assert part in done.out

    def test_export_in_json(self, archive) -> None:
        plain = json.loads(archive("export", "models:with_args", "-o", "m.safetensors", "--json").out)
        assert plain["nbytes"] == os.path.getsize("m.safetensors")
        assert plain["parameters"]["elements"] == 8
        assert list(plain["seconds"])[-1] == "save"

    def test_export_in_statistics(self, archive) -> None:
        plain = archive("export", "models:with_args", "-o", "m.safetensors").out
        out = archive("export", "models:with_args", "-o", "m.safetensors", "--stats").out
        assert out.startswith(plain.splitlines()[0])
        assert re.search(r"^1  aten::linear.default +aten::linear\(Tensor input", out, re.MULTILINE)
        assert re.search(r"^\d+ ms  trace$", out, re.MULTILINE)
        operators = json.loads(archive("export", "models:with_args", "-o", "m.safetensors", "--json").out)
        counts = {each["name"]: each["count"] for each in operators["methods"][0]["operators"]}
        assert counts["aten::linear.default"] == 1

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ((), "aten::linear.default 1"),
            (("--strict",), "aten::linear.default 1"),
            (("--ir", "inference"), "aten::addmm.default 1"),
            (("--preserve", "inner", "--preserve", "inner.linear"), "aten::linear.default 1"),
            (("--method", "encode", "-i", "times=5"), "aten::add_.Tensor 1"),
        ],
    )
    def test_export_captures_in_several_ways(self, archive, options: tuple[str, ...], found: str) -> None:
        done = archive("export", "models:Methods", "-o", "m.safetensors", "-i", "x=f32[2,3]", *options)
        assert (done.code, done.err) == (0, "")
        assert found in archive("inspect", "m.safetensors").out
        assert archive("verify", "m.safetensors").code == 0

    @pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr")  # by torch's unflatten
    def test_a_preserved_submodule_can_be_taken_out_again(self, archive) -> None:
        options = ("-i", "x=f32[2,3]", "--preserve", "inner")
        archive("export", "models:Methods", "-o", "m.safetensors", *options)
        module = torch.export.unflatten(loader.load("m.safetensors"))
        assert module.inner(torch.ones(2, 3))["y"].shape == (2, 2)

    def test_inspect_says_what_goes_in_and_out(self, archive, model: str) -> None:
        out = archive("inspect", model).out
        assert "in 1..8" in out
        assert "output['y']" in out
        assert "aten::linear.default 1" in out

    def test_inspect_prints_what_is_asked_for(self, archive, model: str) -> None:
        assert "= aten.linear.default(x, p_linear_weight, p_linear_bias)" in archive("inspect", model, "--graph").out
        assert "1  aten::linear.default" in archive("inspect", model, "--ops").out
        assert archive("inspect", model, "--tensors").out.splitlines()[0].split()[:3] == [
            "linear.weight",
            "parameter",
            "f32[2,",
        ]

    def test_inspect_in_json_holds_the_graph_if_asked(self, archive, model: str) -> None:
        assert "graphs" not in json.loads(archive("inspect", model, "--json").out)
        plain = json.loads(archive("inspect", model, "--json", "--graph").out)
        assert plain["graphs"]["forward"][0] == "forward("
        assert plain["methods"][0]["expected"] is True

    def test_verify_prints_a_line_for_each_check(self, archive, model: str) -> None:
        done = archive("verify", model)
        assert done.code == 0
        assert all(line.startswith("ok") for line in done.out.splitlines())
        assert "recorded example" in done.out

    def test_run_prints_outputs(self, archive, model: str) -> None:
        done = archive("run", model, "-i", "x=f32[4,3]=ones", "-i", "scale=2.0")
        assert done.out.splitlines() == [
            "output['y']         f32[4, 2]   6, 6, 6, 6, 6, 6, …",
            "output['positive']  bool[4, 3]  True, True, True, True, True, True, …",
        ]

    def test_run_fills_in_the_constants_of_the_capture(self, archive, model: str) -> None:
        outputs = json.loads(archive("run", model, "-i", "x=f32[1,3]=ones", "--json").out)["outputs"]
        assert outputs[0] == {
            "name": "output['y']",
            "kind": "tensor",
            "dtype": "float32",
            "shape": [1, 2],
            "values": [[6.0, 6.0]],
        }

    def test_run_saves_outputs_of_tensors_from_a_file(self, archive, model: str) -> None:
        save_file({"data": torch.full((1, 3), 5.0)}, "in.safetensors")
        done = archive("run", model, "-i", "x=@in.safetensors:data", "--save", "out.safetensors")
        assert "2 tensors saved in out.safetensors" in done.out
        assert torch.equal(load_file("out.safetensors")["output['y']"], torch.full((1, 2), 30.0))

    def test_run_runs_the_recorded_example(self, archive) -> None:
        archive("export", "models:with_args", "-o", "m.safetensors")
        assert "f32[2, 2]   3, 3, 3, 3" in archive("run", "m.safetensors", "--example").out

    def test_custom_operators_are_imported_and_admitted(self, archive, folder: Path) -> None:
        (folder / "doubling.py").write_text(textwrap.dedent(OPERATORS))
        assert archive("export", "doubling:build", "-o", "m.safetensors", "--record-outputs").code == 0
        code = "from archive.cli import main; main()"

        def fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
            command = [sys.executable, "-c", code, *arguments]
            return subprocess.run(command, capture_output=True, text=True, env=environment)

        assert fresh("run", "m.safetensors", "--example").returncode == 1
        allowed = ("--allow-ops", "doubling", "--import", "doubling")
        assert "2, 2" in fresh("run", "m.safetensors", "--example", *allowed).stdout
        assert "outputs equal bit for bit" in fresh("verify", "m.safetensors", *allowed).stdout

    def test_version(self, archive) -> None:
        assert archive("--version").out.startswith("program-archive ")

    def test_inspect_never_imports_torch(self, model: str) -> None:
        code = (
            "import sys\nfrom archive.cli import main\n"
            f"sys.argv = ['archive', 'inspect', '--graph', '--json', {model!r}]\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "sys.stderr.write(str({'torch', 'numpy'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == "set()"


class TestTargets:
    @pytest.mark.parametrize("name", ["with_args", "with_kwargs", "with_shapes", "as_dict"])
    def test_a_function_brings_inputs_in_several_forms(self, name: str) -> None:
        target = prepare(f"models:{name}", [], [])
        assert isinstance(target.module, torch.nn.Module)
        target.module(*target.args, **(target.kwargs or {}))

    def test_a_class_is_a_function_that_returns_a_module(self) -> None:
        target = prepare("models:Affine", ["x=f32[2,3]"], [])
        assert [argument.shape for argument in target.args] == [(2, 3)]
        assert target.dynamic_shapes is None

    def test_a_module_may_need_no_inputs(self) -> None:
        assert prepare("models:NoInputs", [], []).args == ()

    def test_named_dimensions_become_dynamic_shapes(self) -> None:
        target = prepare("models:Affine", ["x=f32[batch,3]", "mask=none", "scale=2.0"], ["batch=1..8"])
        assert (target.args[1], target.kwargs) == (None, {"scale": 2.0})
        dims = target.dynamic_shapes
        assert (dims["mask"], dims["scale"]) == (None, None)
        assert (dims["x"][0].__name__, dims["x"][0].min, dims["x"][0].max) == ("batch", 1, 8)

    def test_inputs_of_any_name_go_where_forward_takes_them(self) -> None:
        target = prepare("models:Keywords", ["x=f32[b,3]", "y=f32[b,3]"], ["b"])
        assert set(target.dynamic_shapes["others"]) == {"y"}
        target.module(*target.args, **target.kwargs)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("models", "'models' is not module:attribute"),
            ("absent_module:x", "cannot import absent_module: ModuleNotFoundError"),
            ("models:absent", "models has no absent"),
            ("models:number", "gives an object of type int, not an nn.Module"),
            ("models:failing", r"models:failing failed: OSError: no weights here \(.*models.py:\d+\)"),
            ("models:leaving", r"models:leaving failed: SystemExit: 5 \(.*models.py:\d+\)"),
            ("models:sized", r"needs arguments \(width, \*, depth=2\) \(.*models.py:\d+\), and is called without any"),
            ("models:Sized", r"needs arguments \(width\) \(.*models.py:\d+\).*; give them defaults"),
            ("models:wrong_dict", "unknown keys \\['arguments'\\]"),
            ("models:no_tuple", r"args that are no tuple; write \(module, \(x,\)\)"),
            ("models:Affine", r"brings no inputs for forward\(x, .*; describe them: --input"),
        ],
    )
    def test_what_is_no_target_is_said(self, name: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            prepare(name, [], [])

    def test_inputs_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(UsageError, match="do not fit forward"):
            prepare("models:Affine", ["z=f32[2,3]"], [])
        with pytest.raises(UsageError, match="brings its own inputs"):
            prepare("models:with_args", ["x=f32[2,3]"], [])


class TestTorchScriptFile:
    @pytest.fixture(autouse=True)
    def script(self, folder: Path) -> None:
        class Flat(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = torch.nn.Linear(6, 2)

            def forward(self, x, scale: float = 2.0):
                return {"y": self.linear(x.view(x.size(0), 6)) * scale}

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated
            torch.jit.script(Flat()).save("model.pt")

    def test_it_becomes_an_archive_with_sizes_that_vary(self, archive) -> None:
        options = ("-i", "x=f32[batch,2,3]", "-d", "batch=1..8", "--record-outputs")
        done = archive("export", "model.pt", "-o", "m.safetensors", *options)
        assert (done.code, done.err) == (0, "")
        assert "parameters: 14 in 2 tensors" in done.out
        assert archive("verify", "m.safetensors").code == 0
        assert "f32[5, 2]" in archive("run", "m.safetensors", "-i", "x=f32[5,2,3]").out

    def test_it_brings_no_inputs(self, archive) -> None:
        assert "model.pt brings no inputs for forward(x, scale=2.0)" in archive("export", "model.pt", "-o", "m").err

    def test_another_file_is_none(self, archive, folder: Path) -> None:
        torch.save({"weight": torch.ones(2)}, folder / "weights.pt")
        for name in ("weights.pt", "models.py"):
            done = archive("export", name, "-o", "m")
            assert (done.code, len(done.err.splitlines())) == (2, 1)
            assert f"{name} is no TorchScript file; name one that torch.jit.save wrote, or module:attribute" in done.err

    def test_a_damaged_one_is_told_in_one_line(self, archive, folder: Path) -> None:
        with zipfile.ZipFile(folder / "bad.pt", "w") as file:
            file.writestr("bad/constants.pkl", b"")
        done = archive("export", "bad.pt", "-o", "m")
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert "cannot load bad.pt: " in done.err

    def test_the_help_says_that_it_is_code(self, archive) -> None:
        assert "code of their author, which runs here" in " ".join(archive("export", "--help").out.split())


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["inspect", "absent"], 1, "error: cannot read absent: No such file or directory; check the path"),
            (["inspect", "models.py"], 1, "error: not a program archive: "),
            (["inspect", "."], 1, "error: cannot read .: it is a folder"),
            (["run", "absent", "--example"], 1, "error: cannot read absent"),
            (["run", "absent", "--import", "nothing"], 2, "error: cannot import nothing: ModuleNotFoundError"),
            (["verify", "absent"], 1, "error: cannot read absent"),
            (["verify", "models.py"], 1, "error: not a program archive: "),
            (
                ["export", "models:Affine", "-o", "m", "-i", "x=f32[b,3]", "-d", "b=1..1"],
                2,
                "error: --dynamic 'b=1..1'",
            ),
            (["export", "models:branching", "-o", "m"], 1, "error: "),
            (["export", "models:with_args", "-o", "absent/m"], 1, "error: cannot write absent/m"),
            (["export", "models:with_args", "-o", "."], 1, "error: cannot write"),
            (["export", "models:number", "-o", "m"], 2, "error: models:number gives an object of type int"),
            (["export", "models:with_args"], 2, "'--output'"),
            (["export", "models:with_args", "-o", "m", "--ir", "other"], 2, "'other' is not one of"),
            (
                ["export", "models:with_args", "-o", "m", "--method", "encode"],
                2,
                "error: models:with_args has no method",
            ),
            (["export", "models:with_args", "-o", "m", "--preserve", "absent"], 1, "error: there is no submodule"),
            (["frobnicate"], 2, "No such command"),
            (["inspect"], 2, "Missing argument"),
        ],
    )
    def test_one_line_says_it_and_nothing_is_written(
        self, archive, folder: Path, arguments: list[str], code: int, message: str
    ) -> None:
        done = archive(*arguments)
        assert done.code == code
        assert message in done.err
        assert not message.startswith("error") or len(done.err.splitlines()) == 1
        assert {path.name for path in folder.iterdir()} <= {"models.py", "__pycache__"}

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["-i", "x=f32[4,5]"], 1, "expected 3"),
            (["-i", "x=f32[9,3]"], 1, "expected"),
            (["-i", "x=i64[4,3]"], 1, "expected"),
            (["-i", "x=f32[4,3]", "-i", "scale=3.0"], 1, "captured for 2.0"),
            (["-i", "x=f32[b,3]"], 2, "dimension 'b' has no size here; write a number"),
            (["-i", "x=@absent:k"], 1, "cannot read absent"),
            (["-i", "x=f32[4,3]", "--method", "decode"], 2, "no method 'decode'; it has: forward"),
            (["-i", "x=f32[4,3]", "--example"], 2, "exclude each other"),
            ([], 2, "no value for x; give each with --input, or run the recorded example with --example"),
        ],
    )
    def test_inputs_that_do_not_fit_the_program(
        self, archive, model: str, arguments: list[str], code: int, message: str
    ) -> None:
        done = archive("run", model, *arguments)
        assert done.code == code
        assert message in done.err
        assert len(done.err.splitlines()) == 1

    def test_a_truncated_archive_fails_every_command(self, archive, model: str) -> None:
        os.truncate(model, os.path.getsize(model) - 100)
        assert "truncated: 100 bytes are missing" in archive("inspect", model).err
        assert "truncated: 100 bytes are missing" in archive("run", model, "--example").err
        done = archive("verify", model)
        assert (done.code, done.out) == (1, "")
        assert "truncated: 100 bytes are missing" in done.err
        done = archive("verify", model, "--json")
        assert (done.code, done.err) == (1, "")
        assert json.loads(done.out)["ok"] is False

    def test_verify_fails_for_weights_that_changed(self, archive, model: str) -> None:
        from archive.reading import open_archive

        with open_archive(model) as file:
            start = file.entries["linear.weight"].start
        data = bytearray(Path(model).read_bytes())
        data[start] ^= 1
        Path(model).write_bytes(data)
        done = archive("verify", model, "--json")
        assert done.code == 1
        assert [check["ok"] for check in json.loads(done.out)["checks"]].count(False) >= 1

    def test_verify_says_it_of_every_section_and_tensor(self, archive, model: str) -> None:
        assert "ok  tensor" in archive("verify", model, "--tensors").out
        done = archive("verify", model, "--digests", "--json")
        assert done.code == 0
        assert {part["name"] for part in json.loads(done.out)["parts"]} >= {
            "linear.weight",
            "__program__/forward/graph",
        }
        data = bytearray(Path(model).read_bytes())
        data[-100] ^= 1
        Path(model).write_bytes(data)
        done = archive("verify", model, "--digests")
        assert done.code == 1
        assert "CHANGED" in done.out or "differ" in done.err

    def test_digests_are_verified_without_torch(self, model: str) -> None:
        code = (
            "import sys; from archive.cli import app; app(['verify', sys.argv[1], '--digests'], standalone_mode=False)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code + "; print('torch' in sys.modules)", model],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        assert done.stdout.splitlines()[-1] == "False"

    def test_an_archive_without_example_says_so(self, archive) -> None:
        program = torch.export.export(torch.nn.Linear(3, 2), (torch.ones(1, 3),))
        exporter.save(program, "m.safetensors", examples=False)
        assert "holds no example inputs; describe them with --input" in archive("run", "m.safetensors", "--example").err

    def test_inputs_that_only_the_example_can_give_are_named(self, archive) -> None:
        archive("export", "models:pair", "-o", "m.safetensors")
        assert "no value for both['left'], both['right']; give each" in archive("run", "m.safetensors").err

    def test_one_byte_that_is_missing_is_one(self, archive, model: str) -> None:
        os.truncate(model, os.path.getsize(model) - 1)
        assert "truncated: 1 byte is missing" in archive("inspect", model).err

    def test_names_in_an_error_cannot_steer_the_terminal(self, archive) -> None:
        assert "\x1b" not in archive("inspect", "a\x1b[2J").err

    def test_interrupted_it_leaves_with_130(self, archive, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr("archive.reading.open_archive", interrupt)
        assert archive("inspect", "m").code == 130


class TestProgress:
    def test_where_nobody_watches_a_line_appears_now_and_then(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with progress(shown=True) as show:
            show("too early")
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("archive.cli_progress._PAUSE_SECONDS", 0.0)
        with progress(shown=True) as show:
            show("in time\x1b")
        assert capsys.readouterr().err == "in time\\x1b\n"

    def test_on_a_terminal_a_live_line_appears_after_a_while(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with progress(shown=True) as show:
            show("[red]two")
        assert "two" not in capsys.readouterr().err
        monkeypatch.setattr("archive.cli_progress._PATIENCE_SECONDS", 0.0)
        with progress(shown=True) as show:
            show("[red]two")
            time.sleep(0.3)
        assert "[red]two" in capsys.readouterr().err

    @pytest.mark.parametrize(("option", "prints"), [((), True), (("--json",), False), (("--quiet",), False)])
    def test_stages_and_modules_are_told_unless_it_is_to_be_quiet(
        self, archive, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], prints: bool
    ) -> None:
        monkeypatch.setattr("archive.cli_progress._PAUSE_SECONDS", 0.0)
        done = archive("export", "models:with_args", "-o", "m.safetensors", *option)
        told = [line.partition(":")[0] for line in done.err.splitlines()]
        assert done.code == 0
        assert ("module 2 of 2, linear (Linear)" in told) == ("trace" in told) == ("save" in told) == prints
        assert (done.out == "") == ("--quiet" in option)
