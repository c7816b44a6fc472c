# Targets: setup (make .venv), demo (the main job on the built-in dataset), test, test-all, lint, lock,
# docs (reference pages, made from the code), audit (known vulnerabilities of dependencies).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pip honours PIP_FIND_LINKS by itself; uv has a variable of its own.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_COMPILE_BYTECODE = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = true

.PHONY: setup demo test test-all lint docs lock audit

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]' || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/python -m flows.retrain --datasets demo --output-dir outputs/demo

test: setup lint
	$(BIN)/python -m pytest

# Two files at once: most tests wait for servers and processes.
test-all: setup lint
	$(BIN)/python -m pytest -m 'not gpu' --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(BIN)/python -m docs.generate

audit: setup
	$(BIN)/python .ci/audit.py

lock: setup
	UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev \
	  --no-header --no-annotate --no-emit-index-url pyproject.toml -o constraints.txt
