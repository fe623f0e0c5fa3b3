# make demo     watch a small room (SECONDS=10 ends it by itself)
# make test     the tests that are not `long`, few examples each, and 100 % branch coverage of presence_proto; minutes
# make test-all every test, all examples, and the same coverage; CI runs this
# make lint     ruff and mypy
# make fuzz     every fuzzer for SECONDS=60, JOBS=1 at a time, or TARGET=name alone, by chance or by SEED; on Linux
# make docs     build the site in build/docs; a warning is an error
# make wheel-test  run a part of the tests against the built wheel, in an environment of its own
# make bench    measure ourselves next to the official clients, in some minutes; the report is in build/, too
# make instructions  count what the processor does on the hot paths, and fail when it is more; needs valgrind
# make mutants  put small bugs into copies of the sources, and see which test fails (NAME=part JOBS=2)
# make matrix   the tests of the core and of asyncio with the newest and the oldest dependencies that we allow, and
#               on every other Python that is installed here
# make lock     take the newest releases of all dependencies into requirements/*.txt
#
# Each makes its own .venv when there is none, with PYTHON (3.11 or newer), and installs what it needs: the versions
# in requirements/*.txt, checked by their hashes.

PYTHON ?= python3
SECONDS ?=
# One test process per core. `make test PARALLEL=` uses a single process.
PARALLEL ?= -n auto --dist worksteal
NAME :=
JOBS ?= 1
BIN := .venv/bin

# Tests start hundreds of processes. With this variable each of them would compile all sources again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint docs wheel-test bench instructions mutants matrix lock fuzz clean

demo: .venv/.demo
	$(BIN)/presence demo $(if $(SECONDS),--seconds $(SECONDS))

PYTEST := $(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term-missing:skip-covered

test: .venv/.dev
	$(PYTEST) -m "not long" --hypothesis-profile=brief

test-all: .venv/.dev
	$(PYTEST) -m "" --hypothesis-profile=thorough

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell --ignore-words-list tru README.md CHANGELOG.md docs src
	$(BIN)/python docs/prose.py

docs: .venv/.dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -d build/doctrees docs build/docs
	@echo "The site is in build/docs/index.html"

# Of each part something: the core, the hub, real sockets, the command, the fixture.
WHEEL_TESTS := tests/test_client.py tests/test_realtime.py tests/hub/test_hub.py \
	tests/adapters/test_asyncio_presence.py tests/adapters/test_cli.py tests/adapters/test_pytest_plugin.py

wheel-test: .venv/.dev
	rm -rf build/wheel
	$(BIN)/python -m build --no-isolation --outdir build/wheel .
	$(BIN)/python -m venv build/wheel/venv
	# The locked versions as constraints: what is installed follows from what the wheel says that it needs.
	sed -n 's/ \\$$//; /^[a-z]/p' requirements/dev.txt > build/wheel/constraints.txt
	build/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check -c build/wheel/constraints.txt \
		"presence-proto[all] @ file://$(CURDIR)/$$(echo build/wheel/*.whl)" cryptography trustme
	build/wheel/venv/bin/python -c \
		"import presence_proto, sys; assert presence_proto.__file__.startswith(sys.prefix), presence_proto.__file__"
	build/wheel/venv/bin/python -m pytest -q -p no:cacheprovider $(WHEEL_TESTS)

bench: .venv/.dev
	$(BIN)/python -m benchmarks --json build/bench.json --chart build/bench.png

instructions: .venv/.dev
	$(BIN)/python -m benchmarks.instructions

mutants: .venv/.dev
	PYTHONPATH=tests $(BIN)/python -m mutants --jobs $(JOBS) $(NAME)

# All that the work on the project needs; what the demo, the fuzzers and `make matrix` do with; and the oldest run-time
# dependencies that we allow. No index is named in them: pip asks the one that it is set up for.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command "make lock" pyproject.toml

lock: .venv/.dev
	$(LOCK) --extra all --group dev -o requirements/dev.txt
	$(LOCK) --extra cli --group build -c requirements/dev.txt -o requirements/demo.txt
	$(LOCK) --extra testing --group build --group fuzz -c requirements/dev.txt -o requirements/fuzz.txt
	$(LOCK) --extra cli --extra testing --extra trio --group build --group test -c requirements/dev.txt -o requirements/test.txt
	$(LOCK) --resolution lowest-direct -o requirements/oldest.txt

matrix:
	$(PYTHON) tests/matrix.py

fuzz: .venv/.fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz run $(TARGET) --seconds $(or $(SECONDS),60) --jobs $(or $(JOBS),1) \
		--seed $(or $(SEED),0)

clean:
	rm -rf .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist

# The stamps: what is installed in .venv, as of the files that they are newer than.

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
OURSELVES := $(PIP_INSTALL) --no-deps --no-build-isolation --editable .

.venv/.demo: requirements/demo.txt pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r $<
	$(OURSELVES)
	@touch $@

.venv/.dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r $<
	$(OURSELVES)
	@touch $@ .venv/.demo

.venv/.fuzz: requirements/fuzz.txt pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r $<
	$(OURSELVES)
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is not one: try  make $(MAKECMDGOALS) PYTHON=python3.13" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
