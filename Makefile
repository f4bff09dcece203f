# `make demo` to see tulle, `make test` to prove it, `make check` while changing it. `make help` lists the rest.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
STUBS := $(VENV)/.stubs
# Without compiled modules every program starts a second later.
unexport PYTHONDONTWRITEBYTECODE
# Processes are spawned beside gRPC servers.
export GRPC_ENABLE_FORK_SUPPORT := 0

# What needs no mesh, and what brings one.
FAST := $(wildcard tests/unit tests/playbook tests/property tests/conformance tests/golden)
SLOW := $(wildcard tests/e2e)

.PHONY: help setup dev system demo test test-fast test-e2e test-pythons check format bench golden stubs lock docs wheel clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

setup: $(RUNTIME)  ## the virtual environment .venv with what tulle needs to run, from requirements.lock

dev: $(DEV)  ## the same with everything that tests, checks and documentation need, from requirements-dev.lock

$(RUNTIME): requirements.lock pyproject.toml packaging/venv.sh
	@sh packaging/venv.sh $(VENV) requirements.lock $(PYTHON)
	@touch $@

$(DEV): requirements-dev.lock pyproject.toml packaging/venv.sh
	@sh packaging/venv.sh $(VENV) requirements-dev.lock $(PYTHON)
	@touch $(RUNTIME) $@

$(STUBS): $(DEV) src/tulle/pb/stubs.py src/tulle/pb/descriptors.py
	@$(BIN)/python -m tulle.pb.stubs
	@touch $@

stubs: $(STUBS)  ## type stubs of Envoy's messages, made from the pinned Envoy, for mypy and editors

system:  ## the system programs that tests use (nftables, iproute2, ...), where this user may install them
	@sh packaging/system.sh test

demo: $(RUNTIME)  ## tulle with the sample application on this machine
	@sh packaging/system.sh demo
	@$(BIN)/tulle demo up

test: $(DEV) system  ## every test, on a machine with nothing prepared
	@sh packaging/test.sh $(VENV)

test-fast: $(DEV)  ## unit, playbook, property, conformance and golden tests
	@$(BIN)/python -m pytest -q $(FAST) -n 2 --dist loadfile

test-e2e: $(DEV) system  ## real control plane, real Envoys, real processes
	@$(BIN)/python -m pytest -q $(SLOW) -n 2 --dist loadfile --no-loadscope-reorder

test-pythons: $(DEV)  ## the unit tests on every other Python 3.11 to 3.14 that this machine has
	@sh packaging/pythons.sh $(VENV)

check: $(DEV) $(STUBS)  ## format, lint, types, layers, known vulnerabilities, unit tests: a developer's minute
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@sh packaging/check.sh $(VENV)

format: $(DEV)  ## rewrite files as ruff formats them
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(DEV) system  ## measure the mesh: one table, and the same as JSON
	@$(BIN)/python -m tests.bench

golden: $(DEV)  ## rewrite the goldens; look at the difference before committing it
	@TULLE_GOLDEN=rewrite $(BIN)/python -m pytest -q tests/golden || true
	@git --no-pager diff --stat -- tests/golden

lock: $(DEV)  ## new lock files with the newest versions that pyproject.toml allows
	@sh packaging/lock.sh $(BIN)/uv

docs: $(DEV)  ## the generated reference pages, then the site into site/
	@$(BIN)/python docs/generate.py
	@$(BIN)/mkdocs build --quiet --strict

wheel: $(DEV)  ## dist/tulle-*.whl and the source archive
	@$(BIN)/python packaging/assets.py
	@$(BIN)/python -m hatchling build

clean:  ## everything that make made
	@rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests samples -name __pycache__ -type d -prune -exec rm -rf {} +
