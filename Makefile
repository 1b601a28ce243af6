# `make` or `make help` lists the targets. Each makes .venv where it is missing or older than pyproject.toml.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart test slow browser lint bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: $(VENV)/.installed ## build, train and evaluate in a smaller setting; ends with the table
	$(BIN)/symile-m3 quickstart

test: $(VENV)/.installed-dev ## the fast tests, by JOBS processes
	$(BIN)/pytest -n $(JOBS) --dist worksteal

slow: $(VENV)/.installed-dev ## the long tests, by JOBS processes
	$(BIN)/pytest -m slow -n $(JOBS) --dist worksteal

browser: $(VENV)/.installed-dev ## the tests of pages, in the system's Chromium
	$(BIN)/pytest -m browser tests/browser

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev ## the benchmarks, but for comparison.py, which takes hours; results go to benchmarks/results
	set -e; for script in benchmarks/[a-z]*.py; do [ "$$script" = benchmarks/comparison.py ] || $(BIN)/python "$$script"; done

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# pip compiles one module after the other, which takes a minute for PyTorch; `compileall` takes every core. What it
# cannot compile, such as templates in packages, is not imported either.
COMPILE = $(BIN)/python -m compileall -q -q -j 0 $(VENV)/lib || true

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -e .
	$(COMPILE)
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -e ".[dev]"
	$(COMPILE)
	touch $(VENV)/.installed $@
