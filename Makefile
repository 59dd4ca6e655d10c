# Everything runs in .venv, made here from pyproject.toml. Another interpreter (3.11 or later): make PYTHON=python3.12 ...
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# Test files run beside each other, in the order of tests/conftest.py: the longest first. Each process computes on its own
# thread.
BESIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test quick test-avx2 lint format install

demo: install
	$(BIN)/python -m tune.cli.demo demo

test: lint
	$(BESIDE)

# What needs neither Ray nor training, for the inner loop.
quick: install
	$(BESIDE) -m "not ray and not trains and not slow"

# The tests marked avx2, as on a processor with AVX2 and nothing beyond: without bfloat16. oneDNN and torch read these
# variables once a process; elsewhere than on x86 they mean nothing.
test-avx2: install
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest -m avx2

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[offline,dev]'
	touch $@
