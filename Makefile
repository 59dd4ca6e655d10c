# Everything runs in .venv, made here from pyproject.toml. Another interpreter (3.11 or later): make PYTHON=python3.12 ...
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test lint format install

demo: install
	$(BIN)/python -m tune.cli.demo demo

test: lint
	$(BIN)/python -m pytest

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
