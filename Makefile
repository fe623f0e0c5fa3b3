# make demo     watch a small room (SECONDS=10 ends it by itself)
# make test     every test, and 100 % branch coverage of presence_proto
# make lint     ruff and mypy
# make fuzz     every fuzzer for SECONDS=60, JOBS=1 at a time, or TARGET=name alone; on Linux
# make docs     build the site in build/docs; a warning is an error
# make wheel-test  run a part of the tests against the built wheel, in an environment of its own
# make bench    measure ourselves next to the official clients, in some minutes; the report is in build/, too
# make instructions  count what the processor does on the hot paths, and fail when it is more; needs valgrind
# make mutants  put small bugs into copies of the sources, and see which test fails (NAME=part JOBS=2)
#
# Each makes its own .venv when there is none, with PYTHON (3.11 or newer), and installs what it needs.

PYTHON ?= python3
SECONDS ?=
NAME :=
JOBS ?= 1
BIN := .venv/bin

.PHONY: demo test lint docs wheel-test bench instructions mutants fuzz clean

demo: .venv/.cli
	$(BIN)/presence demo $(if $(SECONDS),--seconds $(SECONDS))

test: .venv/.dev
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs
	@echo "The site is in build/docs/index.html"

# Of each part something: the core, the hub, real sockets, the command, the fixture.
WHEEL_TESTS := tests/test_client.py tests/test_realtime.py tests/hub/test_hub.py \
	tests/adapters/test_asyncio_presence.py tests/adapters/test_cli.py tests/adapters/test_pytest_plugin.py

wheel-test: .venv/.dev
	rm -rf build/wheel
	$(BIN)/python -m build --no-isolation --outdir build/wheel .
	$(BIN)/python -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check \
		"presence-proto[all] @ file://$(CURDIR)/$$(echo build/wheel/*.whl)" trustme
	build/wheel/venv/bin/python -c \
		"import presence_proto, sys; assert presence_proto.__file__.startswith(sys.prefix), presence_proto.__file__"
	build/wheel/venv/bin/python -m pytest -q -p no:cacheprovider $(WHEEL_TESTS)

bench: .venv/.bench
	$(BIN)/python -m benchmarks --json build/bench.json --chart build/bench.png

instructions: .venv/.bench
	$(BIN)/python -m benchmarks.instructions

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
	@touch $@ .venv/.cli .venv/.docs

.venv/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

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
