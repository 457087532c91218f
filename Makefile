# Two commands do everything on a fresh Linux machine with Python 3.11+ and make:
#   make reproduce   installs into .venv, recomputes every table and figure on the embedded default, and builds the book
#   make test        installs into .venv and runs all tests
#   make help        lists the rest

PYTHON ?= python3
BIN := .venv/bin
PROFILE ?= mini
NAME := $(basename $(notdir $(PROFILE)))
PORT ?= 8000
JOBS ?= 2
REPOSITORY ?=
ADDRESS ?=
# As under the command line: threads that wait soon leave the cores to others.
export GOMP_SPINCOUNT ?= 1000
BOOK = $(BIN)/python book/build.py --profile $(PROFILE) $(if $(REPOSITORY),--repository $(REPOSITORY)) $(if $(ADDRESS),--address $(ADDRESS))

.PHONY: help install reproduce book serve pdf test lint types check evidence mutants benchmark clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: pyproject.toml constraints.txt book/web/package-lock.json
	$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, {sys.version.split()[0]} found: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,book]'
	$(BIN)/npm ci --silent --ignore-scripts --prefix book/web
	touch $@

reproduce: install  ## install, then every table and figure into runs/mini, and the book (PROFILE=NAME_OR_FILE)
	$(BIN)/gradcampp reproduce --profile $(PROFILE)
	$(BOOK) --run runs/$(NAME)

book: install  ## execute the notebooks and build the book into runs/mini/book
	$(BOOK)

serve: book  ## build the book and open it on this machine (PORT=8000)
	@echo "the book: http://localhost:$(PORT)/ (Ctrl-C ends)"
	@$(BIN)/python -m http.server $(PORT) --bind localhost --directory runs/$(NAME)/book/_build/html

pdf: install  ## print the whole book to runs/mini/book.pdf with Chromium
	$(BOOK) --pdf runs/$(NAME)/book.pdf

install: .venv/installed  ## make .venv with the package and the tools for its tests

test: install  ## install and run all tests, JOBS=2 files at a time
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: install  ## ruff: style and formatting; lint-imports: who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install  ## mypy, strict
	$(BIN)/mypy

check: lint types test  ## everything that has to pass before a commit

evidence: install  ## make the records in evidence/ again (DATA=DIR of scripts/photographs.py, SQUEEZENET=FILE)
	$(BIN)/python -m scripts.evidence --data $(DATA) --squeezenet $(SQUEEZENET)

mutants: install  ## change every formula in one place at a time: do the tests notice?
	nice $(BIN)/python -m tests.mutation

benchmark: install  ## speed, side by side with what people would use instead
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmark]'
	$(BIN)/python benchmarks/maps.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/processes.py

clean:  ## remove what the targets made, .venv too
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
