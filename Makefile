# make demo     watch a small room (SECONDS=10 ends it by itself)
# make test     every test, and 100 % branch coverage of presence_proto
# make lint     ruff and mypy
#
# Each makes its own .venv when there is none, with PYTHON (3.11 or newer), and installs what it needs.

PYTHON ?= python3
SECONDS ?=
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.cli
	$(BIN)/presence demo $(if $(SECONDS),--seconds $(SECONDS))

test: .venv/.dev
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist

# The stamps: what is installed in .venv, as of the pyproject.toml that they are newer than.

.venv/.cli: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli]'
	@touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/.cli

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is not one: try  make $(MAKECMDGOALS) PYTHON=python3.13" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
