# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORE ?= prunesweep-data

.PHONY: demo test test-quick test-slow lint install lock clean

demo: install  ## Run the quickstart sweep and print the comparison.
	$(BIN)/prunesweep run examples/quickstart.yaml tracking.store=$(STORE)

test: lint  ## Style, types, and all tests but those that take minutes.
	$(BIN)/pytest -m "not slow"

test-slow: install  ## The tests that take minutes: real kills, methods against chance.
	$(BIN)/pytest -m slow

test-quick: install  ## Without the tests that start servers, kill processes or train.
	$(BIN)/pytest -m "not slow and not integration"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

lock: install  ## Resolve every dependency anew into constraints.txt.
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --upgrade --no-header --no-annotate --quiet --output-file constraints.txt

clean:
	rm -rf $(VENV)
