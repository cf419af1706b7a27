# `make demo` and `make test` do everything on a machine that has only Python 3.11 or newer, gcc and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
STAMP  := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo test check format clean

help:  ## show what there is
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 16

demo: $(READY)  ## a small GPT on two analog chips, beside a GPU: tables and one HTML report
	$(BIN)/cimphony demo

test: $(STAMP)  ## the tests
	$(BIN)/pytest

check: $(STAMP)  ## all that must pass before a change is taken: format, lint, types, imports, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest

format: $(STAMP)  ## format, and put right what the linter can
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

clean:  ## remove what make made
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis .import_linter_cache cimphony/kernels/*.so
	rm -rf .cmake .ninja_* .skbuild-info.json CMakeCache.txt CMakeFiles CMakeInit.txt build.ninja cmake_install.cmake

# The environment is made again when the dependencies or the kernels change; the demo needs no tools of development.
$(READY): EXTRAS :=
$(STAMP): EXTRAS := [dev]
$(READY) $(STAMP): pyproject.toml constraints.txt $(wildcard CMakeLists.txt csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; for example: make PYTHON=python3.12 demo"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".$(EXTRAS)"
	@touch $(READY) $@
