# `make demo` and `make test` set everything up on a fresh machine that has Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint check hostile bench bench-capture format clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint,demo,sign,fuzz]'
	touch $@

demo: setup
	$(BIN)/python demo/main.py

test: setup
	$(BIN)/python -m pytest -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

check: test lint

# onnxruntime is a peer where it installs.
bench: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	-$(BIN)/pip install --quiet --disable-pip-version-check onnx onnxscript onnxruntime
	$(BIN)/python -m benchmarks --json build/bench/results.json --plot build/bench/results.png

hostile: setup
	$(BIN)/python -m tests.hostile

bench-capture: setup
	$(BIN)/python benchmarks/capture.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
