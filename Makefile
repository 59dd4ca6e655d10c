# Everything runs in .venv, made here from pyproject.toml. Another interpreter (3.11 or later): make PYTHON=python3.12 ...
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-avx2 lint format install

demo: install
	$(BIN)/python -m tune.demo demo

test: lint
	$(BIN)/python -m pytest

# The tests marked avx2, as on a processor with AVX2 and nothing beyond: without bfloat16. oneDNN and torch read these
# variables once a process; elsewhere than on x86 they mean nothing.
test-avx2: install
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest -m avx2

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[offline,dev]'
	touch $@
