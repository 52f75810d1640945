# The developer's manual: bare `make` prints it. Needs Python >= 3.11 and make; everything else it installs itself.
#
# Environments of their own, so that the slim one stays what the image holds:
#   .venv          the service alone, no torch         (make serve, make bench)
#   .venv-dev      service, all extras for use, dev tools (make test, make check, make format)
#   .venv-release  tools that need the network         (make lock, make audit)
# Each carries a stamp that is older than pyproject.toml or constraints.txt exactly when it must be installed anew.

PYTHON ?= python3
HOST   ?= 127.0.0.1
PORT   ?= 8000
ARGS   ?=
IMAGE  ?= understudy

SLIM := .venv/.installed
DEV  := .venv-dev/.installed
TOOLS := .venv-release/.installed
PINS := pyproject.toml setup.py constraints.txt
NATIVE_SOURCES := $(shell find native -type f)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve native dev test prove check format bench image lock audit clean

help:  ## print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PORT=$(PORT) HOST=$(HOST) PYTHON=$(PYTHON); ARGS='...' goes to serve, test (pytest) or bench"

serve: $(SLIM)  ## serve models/ on http://HOST:PORT, from .venv (no torch)
	.venv/bin/python -m service serve --host $(HOST) --port $(PORT) $(ARGS)

native: .venv/.native  ## build our own engine for BiLSTMs into .venv, where `make serve` finds it; needs a C++ compiler

dev: $(DEV) .venv-dev/.native  ## create .venv-dev, with torch: to distil and to develop

# Two at a time: half of the tests wait for a server. A file stays with one, which keeps its servers and toys for it.
test: $(DEV) .venv-dev/.native  ## run all tests, from .venv-dev; ARGS='-n 0' one at a time
	.venv-dev/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

prove: $(DEV)  ## the long proofs of tests/prove, some hours; reports in runs/prove
	@mkdir -p runs/prove
	.venv-dev/bin/python -m tests.prove.simulation --seeds 100000 > runs/prove/simulation.json
	.venv-dev/bin/python -m tests.prove.wordpiece --texts 10_000_000 > runs/prove/wordpiece.json
	.venv-dev/bin/python -m tests.prove.swaps --json runs/prove/swaps.json
	.venv-dev/bin/python -m tests.prove.shutdown --rounds 20 --json runs/prove/shutdown.json
	.venv-dev/bin/python -m tests.prove.schema --examples 500 --json runs/prove/schema.json
	.venv-dev/bin/python -m tests.prove.fuzz --runs 10_000_000 --json runs/prove/fuzz.json
	.venv-dev/bin/python -m tests.prove.hostile --seconds 120 > runs/prove/hostile.json
	.venv-dev/bin/python -m tests.prove.overload --rows 8 --seconds 60 --json runs/prove/overload.json
	.venv-dev/bin/python -m tests.prove.saturation --json runs/prove/saturation.json
	.venv-dev/bin/python -m tests.prove.scale_out --json runs/prove/scale_out.json
	.venv-dev/bin/python -m tests.prove.bulk --rows 10_000_000 --engines local,ray --kill --json runs/prove/bulk.json
	.venv-dev/bin/python -m tests.prove.soak --minutes 30 --workers 2 --kill-every 120 --swap-every 60 --json runs/prove/soak.json
	.venv-dev/bin/python -m tests.prove.soak --minutes 3 --swap-every 0 --plant-leak --json runs/prove/leak.json

check: $(DEV)  ## lint, format and types: ruff and mypy, nothing is changed
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy

format: $(DEV)  ## rewrite the code in the house's format
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

bench: $(SLIM)  ## microseconds a row of every bundle in models/, students beside teachers
	.venv/bin/python -m service.bench engine $(ARGS)

image:  ## build the slim container image
	docker build --tag $(IMAGE) --build-arg REVISION=$$(git rev-parse HEAD 2> /dev/null || echo unknown) .

# Hashes of every file of a release, so that one lock fits all processors and Pythons of Linux.
LOCK := .venv-release/bin/uv pip compile --quiet --no-header --no-annotate --constraint constraints.txt \
        --generate-hashes --only-binary :all: --python-platform linux --python-version 3.11 --upgrade

lock: $(TOOLS)  ## write deploy/locks anew, out of constraints.txt; needs the network
	$(LOCK) pyproject.toml --output-file deploy/locks/service.txt
	$(LOCK) deploy/locks/tools.in --output-file deploy/locks/tools.txt

audit: $(TOOLS)  ## ask for known weaknesses of all pins; needs the network
	.venv-release/bin/pip-audit --requirement deploy/locks/service.txt --disable-pip --require-hashes --strict
	.venv-release/bin/pip-audit --requirement constraints.txt --disable-pip --no-deps --strict

clean:  ## remove all environments and every cache
	rm -rf .venv .venv-dev .venv-release .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find service export tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(SLIM): SPEC = .
$(DEV): SPEC = .[export,traces,report,parquet,ray,dev]
$(TOOLS): SPEC = .[release]

# setuptools comes first and is pinned like the rest, so that building the project fetches nothing unpinned.
%/.installed: $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed; say which one with PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --constraint constraints.txt setuptools
	$*/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '$(SPEC)'
	@touch $@

# Without a compiler only the native engine's tests are skipped. With one, a build that fails is an error.
%/.native: %/.installed $(NATIVE_SOURCES)
	@if command -v "$${CXX:-c++}" > /dev/null; then \
	  $*/bin/python -m pip install --quiet --constraint constraints.txt cmake nanobind ninja scikit-build-core && \
	  $*/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --force-reinstall --no-deps ./native; \
	else echo "make: no C++ compiler, so the native engine is not built" >&2; fi
	@touch $@
