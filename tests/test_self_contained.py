"""An archive needs neither the model's code nor its library where it is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import exporter
import loader
from tests.models import Pair, Point, cases

ROOT = Path(__file__).parent.parent


def run_python(code: str, *args: str | Path) -> str:
    """What a fresh process prints that cannot import the tests' models."""
    blocked = "import sys\nfor name in ('transformers', 'tests'): sys.modules[name] = None\n"
    command = [sys.executable, "-W", "error", "-c", blocked + code, *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A transformers model with random weights, its inputs and its outputs."""
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=99)
    model = BertModel(config).eval()
    inputs = {"input_ids": torch.arange(16).reshape(2, 8), "attention_mask": torch.ones(2, 8, dtype=torch.int64)}
    exporter.export(model, (), inputs, path=tmp_path / "bert", record_outputs=True)
    with torch.no_grad():
        outputs = model(**inputs)
    save_file({**inputs, "0": outputs[0], "1": outputs[1].clone()}, tmp_path / "expected")
    return tmp_path


def test_a_transformers_model_without_transformers(bert: Path) -> None:
    printed = run_python(
        """
import torch, loader
from safetensors.torch import load_file
given = load_file(sys.argv[2])
inputs = dict(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
with torch.no_grad():
    for model in (loader.load(sys.argv[1]).module(), loader.load_module(sys.argv[1])):
        out = model(**inputs)
        assert torch.equal(out.last_hidden_state, given["0"]) and torch.equal(out["pooler_output"], given["1"])
        assert out[0] is out.last_hidden_state and out[:2] == (out[0], out[1]) and out.attentions is None
        assert list(out) == list(out.keys()) == ["last_hidden_state", "pooler_output"] and len(out) == 2
        assert "pooler_output" in out and out.to_tuple() == tuple(out.values())
        print(type(out).__module__, repr(out).partition("(")[0])
report = loader.verify(sys.argv[1])
assert report.ok, report
print(report.checks[-1].detail)
""",
        bert / "bert",
        bert / "expected",
    )
    line = "transformers.modeling_outputs BaseModelOutputWithPoolingAndCrossAttentions"
    assert printed.splitlines() == [line, line, "outputs equal bit for bit"]


def test_with_the_library_the_real_class_comes_back(bert: Path) -> None:
    from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

    module = loader.load_module(bert / "bert")
    args, kwargs = module.example_inputs or ((), {})
    assert type(module(*args, **kwargs)) is BaseModelOutputWithPoolingAndCrossAttentions


def test_named_tuples_and_dataclasses_without_their_classes(tmp_path: Path) -> None:
    case = cases()["nested"]()
    path = tmp_path / "nested"
    exporter.export(case.module, case.args, path=path)
    printed = run_python(
        """
import torch, loader
module = loader.load_module(sys.argv[1])
args, _ = module.example_inputs
out = module(*args)
assert out["point"]._fields == ("x", "y") and out["point"].x is out["point"][0]
assert torch.equal(out["pair"].first, out["ordered"]["total"]) and out["pair"].second is None
assert type(out["ordered"]).__name__ == "OrderedDict" and out["count"] == 3 and out["name"] == "name"
print(type(out["point"]).__module__, type(out["pair"]).__qualname__, type(args[1]).__name__)
import exporter
exporter.save(loader.load(sys.argv[1], debug=True), sys.argv[2])
""",
        path,
        tmp_path / "again",
    )
    assert printed.split() == ["tests.models", "Pair", "Point"]
    assert (tmp_path / "again").read_bytes() == path.read_bytes(), "a stand-in must describe the original"


def test_in_this_process_they_are_the_real_classes(tmp_path: Path) -> None:
    case = cases()["nested"]()
    exporter.export(case.module, case.args, path=tmp_path / "nested")
    out = loader.load_module(tmp_path / "nested")(*case.args)
    assert type(out["point"]) is Point
    assert type(out["pair"]) is Pair


def test_a_class_registered_after_its_stand_in_takes_over(tmp_path: Path) -> None:
    case = cases()["nested"]()
    path = tmp_path / "nested"
    exporter.export(case.module, case.args, path=path)
    code = """
import loader
stand_in = type(loader.load_module(sys.argv[1])(*loader.load_module(sys.argv[1]).example_inputs[0])["pair"])
assert issubclass(stand_in, loader.StandIn)
del sys.modules["tests"]
from tests.models import Pair
module = loader.load_module(sys.argv[1])
print(type(module(*module.example_inputs[0])["pair"]) is Pair)
"""
    assert run_python(code, path).strip() == "True"


def test_stand_ins_can_be_pickled(tmp_path: Path) -> None:
    case = cases()["nested"]()
    path = tmp_path / "nested"
    exporter.export(case.module, case.args, path=path)
    code = """
import copy, pickle, torch, loader
module = loader.load_module(sys.argv[1])
out = module(*module.example_inputs[0])
again = pickle.loads(pickle.dumps(out))
assert type(again["pair"]) is type(out["pair"]) and type(again["point"]) is type(out["point"])
assert torch.equal(again["pair"].first, out["pair"].first) and torch.equal(again["point"].x, out["point"].x)
assert type(copy.deepcopy(out["pair"])) is type(out["pair"])
with open(sys.argv[2], "wb") as file:
    pickle.dump(out["pair"], file)
"""
    run_python(code, path, tmp_path / "pickled")
    read = "import pickle; print(type(pickle.load(open(sys.argv[1], 'rb'))).__name__)"
    assert run_python(read, tmp_path / "pickled").strip() == "Pair"


def test_without_the_class_anything_with_its_fields_will_do(tmp_path: Path) -> None:
    case = cases()["nested"]()
    path = tmp_path / "nested"
    exporter.export(case.module, case.args, path=path)
    code = """
import types, collections, torch, loader
module = loader.load_module(sys.argv[1])
items, point, pair, *rest = module.example_inputs[0]
expected = module(items, point, pair, *rest)["pair"].first
Point = collections.namedtuple("Point", ["x", "y"])
for given in ({"first": pair.first}, types.SimpleNamespace(first=pair.first), pair):
    assert torch.equal(module(items, Point(*point), given, *rest)["pair"].first, expected)
print("done")
"""
    assert run_python(code, path).strip() == "done"
