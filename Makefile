# `make demo` and `make test` each work alone on a fresh machine with Python >= 3.11, pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= build/demo
# Names each package as it comes; pip's warnings are kept in a file and shown if it fails.
SHELL := bash
SHOW := awk '/^ *(Downloading|Using cached|Processing) / && !/metadata/ {sub(".*/", "", $$2); print "  " $$0; fflush()} \
	/^Installing collected/ {print "  unpacking all of them"; fflush()}'
install = set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e ".[$(1)]" \
	2> $(VENV)/pip.log | $(SHOW) || { cat $(VENV)/pip.log; exit 1; }

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-fast test-all docs wheel attack lint format bench notebooks notebooks-fast claims mutants clean

# One stamp a set of extras, so that a second run installs nothing.
$(VENV)/.python:
	@echo "making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade "pip>=24"
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing what the demo needs (NumPy, SciPy, PyTorch, transformers …): about 1 GB, minutes the first time"
	@$(call install,demo)
	@touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing what the tests need (as the demo, and pytest, PEFT, Jupyter …): minutes the first time"
	@$(call install,dev)
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing what the documentation needs (as the demo, and MkDocs): minutes the first time"
	@$(call install,docs)
	@touch $@

$(VENV)/.all: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing every extra that a test needs (MkDocs, lm-evaluation-harness, GGUF, pymoo …): minutes the first time"
	@$(call install,all)
	@touch $@ $(VENV)/.dev $(VENV)/.demo $(VENV)/.docs

demo: $(VENV)/.demo  ## predict, simulate, check the papers' claims, write one page
	$(BIN)/python -m paper_checks demo --out $(OUT)

test: $(VENV)/.dev  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadscope

test-fast: $(VENV)/.dev  ## without the tests marked slow
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"

test-all: $(VENV)/.all  ## with every extra, the dear tests, properties at full size (at most 40 minutes); no silent skip
	$(BIN)/python -m pytest -n 2 --dist loadscope --whole

docs: $(VENV)/.docs  ## the documentation as a site in build/site; a broken link or a missing docstring is an error
	$(BIN)/ruff check rmt glora paper_checks  # its rules D1: a docstring on everything public
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

wheel: $(VENV)/.python  ## build the distribution and use it in a fresh environment without PyTorch
	.ci/smoke $(BIN)/python

attack: $(VENV)/.dev  ## random kills, bit flips, bad input (at most 20 minutes)
	ATTACK=whole $(BIN)/python -m pytest -q tests/attack

lint: $(VENV)/.dev  ## ruff (lint, format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## speed claims, as ratios measured in one run
	$(BIN)/python -m benchmarks

notebooks: $(VENV)/.dev  ## execute the text sources and write the paired .ipynb
	$(BIN)/python notebooks/build.py

notebooks-fast: $(VENV)/.dev  ## execute them with small sizes, write nothing
	$(BIN)/python notebooks/build.py --fast

claims: $(VENV)/.dev  ## README table and picture, docs/claims.html from the committed results
	$(BIN)/python docs/alpha_curve.py
	$(BIN)/python -m paper_checks report

mutants: $(VENV)/.dev  ## faults put in on purpose: which flip a verdict, which fail a test (an hour; goes on if run again)
	$(BIN)/python -m mutants

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
