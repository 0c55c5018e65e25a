# Everything from a fresh clone with Python 3.11, make and git: `make all`, `make test`.
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all test lint unit notebooks-check lab bench refresh clean distclean help setup
.DEFAULT_GOAL := help

PROFILE ?= cpu
PYTHON ?= $(or $(shell command -v python3.11),python3)
# Inside a conda environment made from environment.yml: make all VENV=$$CONDA_PREFIX
VENV ?= .venv
BUILD := build
OUT := $(BUILD)/$(PROFILE)/notebooks

PY := $(VENV)/bin/python
READY := $(VENV)/.lalp-ready
BENCH_READY := $(VENV)/.lalp-bench-ready

SOURCES := $(wildcard lalp/*.py lalp/analysis/*.py lalp/profiles/*.yaml)
NOTEBOOKS := $(patsubst notebooks/%.ipynb,%,$(wildcard notebooks/[0-9]*.ipynb))
EXECUTED := $(NOTEBOOKS:%=$(OUT)/%.ipynb)
# The default profile draws the committed figures; the others draw into their own build folder.
DRAWN := $(if $(filter cpu,$(PROFILE)),figures,$(BUILD)/$(PROFILE)/figures)
FIGURES_00 := $(DRAWN)/pool.png
FIGURES_04 := $(patsubst %,$(DRAWN)/%.png,scores teacher_means window_sweep prompts_enough teacher_mix)

export HF_HUB_DISABLE_PROGRESS_BARS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false
# An inherited MPLBACKEND=Agg would leave notebooks without inline figures.
unexport MPLBACKEND

all: $(EXECUTED) $(FIGURES_00) $(FIGURES_04) ## run every notebook whose inputs changed, and draw the figures (PROFILE=cpu)

$(OUT)/%.ipynb: notebooks/%.ipynb $(SOURCES) | $(READY)
	@mkdir -p $(@D)
	TQDM_DISABLE=1 $(PY) -m papermill --log-level WARNING --no-progress-bar -k python3 \
	  --cwd notebooks -p PROFILE $(PROFILE) $< $@

# Notebooks that read what an earlier one wrote.
$(OUT)/04_selection.ipynb: $(OUT)/00_pool.ipynb

# A figure is drawn by its notebook; one that was deleted is drawn again.
$(FIGURES_00): $(OUT)/00_pool.ipynb
$(FIGURES_04): $(OUT)/04_selection.ipynb
$(FIGURES_00) $(FIGURES_04):
	@test -e $@ || { rm $< && $(MAKE) --no-print-directory $<; }

setup: $(READY) ## install into .venv

$(READY): requirements.lock requirements-assets.lock pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --require-hashes -r requirements-assets.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(BENCH_READY): $(READY) requirements-bench.lock
	$(PY) -m pip install --quiet -r requirements-bench.lock -c requirements.lock
	touch $@

test: lint unit notebooks-check ## lint, unit tests, and every committed notebook run again by nbval

lint: | $(READY) ## ruff: format and lint
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

unit: | $(READY) ## pytest
	$(PY) -m pytest -n 2 --dist loadfile

notebooks-check: | $(READY)
	TQDM_DISABLE=1 $(PY) -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout 1800 \
	  -p no:xdist -o addopts= notebooks

lab: | $(READY) ## open JupyterLab
	$(VENV)/bin/jupyter lab notebooks

bench: $(BENCH_READY) ## compare speed and memory with the per-step loop and with peers
	$(PY) -m benchmarks.scoring

refresh: $(EXECUTED) ## put the executed notebooks (default profile) into notebooks/, without noise
	@test "$(PROFILE)" = cpu || { echo "only PROFILE=cpu is committed"; exit 2; }
	$(PY) -m benchmarks.refresh $(OUT) notebooks
	touch $(EXECUTED)

clean: ## remove what notebooks and scoring computed
	rm -rf $(BUILD)

distclean: clean ## remove the environment as well
	rm -rf $(VENV)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
