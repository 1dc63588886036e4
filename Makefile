# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORE ?= prunesweep-data
JOBS ?= auto
# Each module of tests, or what shares a cluster, stays in one process; the longest begin.
PYTEST := $(BIN)/pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder --times

.PHONY: demo test test-integration test-slow lint install docs lock clean

demo: install  ## Run the quickstart sweep and print the comparison.
	$(BIN)/prunesweep run examples/quickstart.yaml tracking.store=$(STORE)

test: lint  ## Style, types, unit tests, and one real sweep through Ray, the ledger and MLflow.
	$(PYTEST) -m "not slow and (not integration or smoke)"

test-integration: install  ## The rest of what CI runs: clusters, servers, processes that are killed.
	$(PYTEST) -m "not slow and integration and not smoke"

test-slow: install  ## The tests that take minutes: kills at many moments, methods against chance.
	$(BIN)/pytest -m slow --times

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

docs: install  ## Draw what two pages show of the code: the imports, and the tree of errors.
	$(BIN)/python -m tests.import_graph
	$(BIN)/python -m tests.error_tree

lock: install  ## Resolve every dependency anew into constraints.txt.
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra onnx --universal --python-version 3.11 \
	  --upgrade --no-header --no-annotate --quiet --output-file constraints.txt

clean:
	rm -rf $(VENV)
