# make demo     watch a small room (SECONDS=10 ends it by itself)
# make test     every test, and 100 % branch coverage of presence_proto
# make lint     ruff and mypy
# make fuzz     every fuzzer for SECONDS=60, JOBS=1 at a time, or TARGET=name alone; on Linux
# make bench    measure ourselves next to the official clients, in some minutes; the report is in build/, too
# make mutants  put small bugs into copies of the sources, and see which test fails (NAME=part JOBS=2)
#
# Each makes its own .venv when there is none, with PYTHON (3.11 or newer), and installs what it needs.

PYTHON ?= python3
SECONDS ?=
NAME :=
JOBS ?= 1
BIN := .venv/bin

.PHONY: demo test lint bench mutants fuzz clean

demo: .venv/.cli
	$(BIN)/presence demo $(if $(SECONDS),--seconds $(SECONDS))

test: .venv/.dev
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.bench
	$(BIN)/python -m benchmarks --json build/bench.json --chart build/bench.png

mutants: .venv/.dev
	PYTHONPATH=tests $(BIN)/python -m mutants --jobs $(JOBS) $(NAME)

fuzz: .venv/.fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz run $(TARGET) --seconds $(or $(SECONDS),60) --jobs $(or $(JOBS),1)

clean:
	rm -rf .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist

# The stamps: what is installed in .venv, as of the pyproject.toml that they are newer than.

.venv/.cli: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli]'
	@touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/.cli

.venv/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

.venv/.fuzz: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is not one: try  make $(MAKECMDGOALS) PYTHON=python3.13" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
