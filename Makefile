# make demo: what a newcomer runs, with the runtime only. make test, make lint: what a contributor runs; make check: all.
# The environment is .venv; each target installs what it needs, once, and again when pyproject.toml changes.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Some indexes serve a CUDA build of gigabytes by this name: give pip one of CPU builds (PIP_EXTRA_INDEX_URL,
# PIP_FIND_LINKS), or name another build here.
TORCH  ?= torch==2.13.0
timed   = @start=$$(date +%s); $(1); status=$$?; echo "make $@: $$(( $$(date +%s) - start )) s"; exit $$status

# Processes of the tests, each with one thread. What the tests of all share is made once (tests/conftest.py).
WORKERS ?= 2
SIDE_BY_SIDE = --numprocesses $(WORKERS) --dist worksteal

.PHONY: demo test check lint security gpu-kit pictures install clean

demo: $(VENV)/.runtime
	$(call timed,$(BIN)/sfm-match demo --workspace demo)

test: $(VENV)/.dev
	$(call timed,$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS))

# all that there is: style, types, known weaknesses, tests (properties with more examples), and those that take long
check: export HYPOTHESIS_PROFILE = thorough
check: lint security test
	$(call timed,$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m slow $(ARGS))

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# our own code by bandit (what it does not look at: pyproject.toml), the packages that are installed by pip-audit
security: $(VENV)/.dev
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive sfm_match pairs exports
	$(BIN)/python scripts/audit_dependencies.py

# build/gpu-kit: all that a GPU machine without a network needs to run scripts/gpu_check.py
gpu-kit: $(VENV)/.dev
	$(call timed,$(BIN)/python scripts/gpu_kit.py $(ARGS))

# docs/images: made again by the project's own commands; Chromium shows the report
pictures: $(VENV)/.dev
	$(call timed,$(BIN)/python scripts/make_pictures.py build/demo)

install: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

COMPILED = $(wildcard sfm_match/compiled/*.[ch])

$(VENV)/.runtime: pyproject.toml $(COMPILED) | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml $(COMPILED) | $(BIN)/python
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(VENV)/.runtime $@

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
