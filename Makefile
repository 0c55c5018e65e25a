# Everything from a fresh clone with Python 3.11, make and git: `make all`, `make test`.
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all test lint unit notebooks-check lab site fuzz kills cluster-kills bench bench-gpu families results arms traces-arms world words refresh \
  clean distclean help setup plan dryrun pipeline torch-range
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

SOURCES := $(shell find lalp -name "*.py" -o -name "*.yaml")
NOTEBOOKS := $(patsubst notebooks/%.ipynb,%,$(wildcard notebooks/[0-9]*.ipynb))
EXECUTED := $(NOTEBOOKS:%=$(OUT)/%.ipynb)
# It collects what all others found.
LAST := 09_paper_vs_run
# It is about a reader's own pool: it has no profile and no verdicts, and draws no committed figure.
OWN := 11_your_pool
# The default profile draws the committed figures; the others draw into their own build folder.
DRAWN := $(if $(filter cpu,$(PROFILE)),figures,$(BUILD)/$(PROFILE)/figures)
# Every figure has one notebook that draws it.
FIGURES_00_pool := pool
FIGURES_01_coverage := coverage coverage_candidates coverage_categories coverage_controls coverage_similarity coverage_traces
FIGURES_02_token_attribution := token_categories category_mass low_probability_tokens category_shifts
FIGURES_03_self_conditioning := self_conditioning self_conditioning_controls occurrences
FIGURES_04_selection := scores teacher_means teacher_pairs window_sweep prompts_enough teacher_mix splitter_sensitivity
FIGURES_05_sft := training_loss held_out_nll
FIGURES_06_eval := accuracy arm_measures
FIGURES_07_theory := learned_conditionals learned_weights gap_by_distance gap_by_window fluency_trap fatal_step
FIGURES_08_step_world := world_drawing world_thirds world_teachers world_rules world_windows world_gaps world_losses world_copying world_map
FIGURES_09_paper_vs_run := headline overview
FIGURES_10_variants := score_correlations step_length
FIGURES_12_long_traces := traces_lengths traces_orders traces_sweep traces_enough traces_mix traces_correlations
FIGURES_13_long_traces_tokens := traces_category_mass traces_words traces_conditioning traces_gap_sizes
figures_of = $(FIGURES_$(1):%=$(DRAWN)/%.png)
FIGURES := $(foreach name,$(NOTEBOOKS),$(call figures_of,$(name)))

# What the tool and the replication keep stays in the checkout: make clean removes it.
export LALP_CACHE := $(CURDIR)/$(BUILD)
export HF_HUB_DISABLE_PROGRESS_BARS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false
# An inherited MPLBACKEND=Agg would leave notebooks without inline figures.
unexport MPLBACKEND

all: $(EXECUTED) $(FIGURES) ## run every notebook whose inputs changed, and draw the figures (PROFILE=cpu)
	@$(PY) -m lalp.paper.committed --profile $(PROFILE)

# Under another name until it has run whole: papermill writes while it runs, and may be killed.
$(OUT)/%.ipynb: notebooks/%.ipynb $(SOURCES) | $(READY)
	@mkdir -p $(@D)/unfinished
	TQDM_DISABLE=1 $(PY) -m papermill --log-level WARNING --no-progress-bar -k python3 \
	  --cwd notebooks $(PARAMETERS) $< $(@D)/unfinished/$(@F)
	@mv $(@D)/unfinished/$(@F) $@

$(EXECUTED): PARAMETERS = -p PROFILE $(PROFILE)
$(OUT)/$(OWN).ipynb: PARAMETERS :=
$(OUT)/$(OWN).ipynb: lalp/report/pool.jsonl

# Notebooks that read what an earlier one wrote: the graded pool, its scores, all verdicts.
$(OUT)/01_coverage.ipynb $(OUT)/04_selection.ipynb: $(OUT)/00_pool.ipynb
$(patsubst %,$(OUT)/%.ipynb,02_token_attribution 03_self_conditioning 05_sft 10_variants): $(OUT)/04_selection.ipynb
$(OUT)/06_eval.ipynb: $(OUT)/05_sft.ipynb
$(OUT)/$(LAST).ipynb: $(filter-out $(OUT)/$(LAST).ipynb $(OUT)/$(OWN).ipynb,$(EXECUTED))

# A figure is drawn by its notebook; where one was deleted, the notebook runs again, once.
define redraw
.PHONY: drawn-$(1)
drawn-$(1): $(OUT)/$(1).ipynb
	@ls $(call figures_of,$(1)) > /dev/null 2>&1 || { rm $$< && $$(MAKE) --no-print-directory $$<; }
$(call figures_of,$(1)): drawn-$(1) ;

endef
$(foreach name,$(NOTEBOOKS),$(if $(FIGURES_$(name)),$(eval $(call redraw,$(name)))))

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
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

notebooks-check: | $(READY)
	TQDM_DISABLE=1 $(PY) -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout 1800 \
	  -p no:xdist -o addopts= $(patsubst %,notebooks/%.ipynb,$(filter-out $(LAST),$(NOTEBOOKS)) $(LAST))

lab: | $(READY) ## open JupyterLab
	$(VENV)/bin/jupyter lab notebooks

# What was read stays in doctrees/, the pages are written anew: none outlives its source.
site: | $(READY) ## the site, with the docs, the notebooks and the reference: build/site/index.html
	rm -rf $(BUILD)/site
	$(PY) -m sphinx -W --keep-going -q -c docs -d $(BUILD)/doctrees . $(BUILD)/site

fuzz: | $(READY) ## 1,000 bad inputs over every command and kind of file, in minutes (SEED=7 N=1000 CASE=12)
	$(PY) -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(N),--n $(N)) $(if $(CASE),--case $(CASE))

kills: | $(READY) ## 100 kills at random moments; each run goes on to the same files (minutes; SEED=7 N=100 CASE=12)
	$(PY) -m benchmarks.kills $(if $(SEED),--seed $(SEED)) $(if $(N),--n $(N)) $(if $(CASE),--case $(CASE))

cluster-kills: | $(READY) ## 20 kills of workers on a Ray cluster; each table is that of one process (minutes; SEED=7 N=20)
	$(PY) -m benchmarks.cluster_kills $(if $(SEED),--seed $(SEED)) $(if $(N),--n $(N))

bench: $(BENCH_READY) ## compare speed and memory with the per-step loop and with peers
	$(PY) -m benchmarks.scoring
	$(PY) -m benchmarks.sandbox

bench-gpu: | $(READY) ## speed, memory and exactness of scoring on one GPU, random weights (eight minutes)
	$(PY) -m benchmarks.gpu

# The lowest torch that pyproject.toml takes, and the highest there was a wheel of.
TORCHES := 2.6.0 2.14.1
# These embed or train as well, which takes more than the tool alone.
WITH_EXTRAS := test_embedder test_one_text test_turns

torch-range: ## test the tool alone with both ends of torch's range, each in its own environment (gigabytes)
	for version in $(TORCHES); do \
	  folder=$(BUILD)/torch-$$version; \
	  $(PYTHON) -m venv $$folder && \
	  $$folder/bin/python -m pip install --quiet torch==$$version . beautifulsoup4 hypothesis psutil pytest && \
	  $$folder/bin/python -m pytest -p no:cacheprovider tests/scoring tests/selection tests/students \
	    $(WITH_EXTRAS:%=--ignore tests/students/%.py) || exit 1; \
	done

families: | $(READY) ## compare every model family that transformers builds with one pass per step (minutes)
	$(PY) -m benchmarks.families

results: | $(READY) ## compute committed scores anew, whole (NAME=champ: hours; PART=scores; ADD=1: what is missing)
	$(PY) -m lalp.paper.results $(if $(NAME),--name $(NAME)) $(if $(PART),--part $(PART)) $(if $(ADD),--add) \
	  $(if $(STUDENT),--student $(STUDENT))

arms: | $(READY) ## train and evaluate more students (an hour), and keep the results (PROFILE=standard)
	$(PY) -m lalp.paper.arms --profile $(if $(filter file,$(origin PROFILE)),standard,$(PROFILE))

traces-arms: | $(READY) ## fine-tune a student on long traces: 12 minutes on a large GPU (STUDENT=... TRACES=...; SMALL=1)
	$(PY) -m lalp.paper.traces.arms $(if $(STUDENT),--student $(STUDENT)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(SMALL),--small)

world: | $(READY) ## step world over more seeds, and keep the results (PROFILE=standard; long, controls, reach: hours; reach: STUDENTS=4)
	$(PY) -m lalp.paper.world$(if $(filter reach%,$(PROFILE)),.reach) --profile $(if $(filter file,$(origin PROFILE)),standard,$(PROFILE)) \
	  $(if $(STUDENTS),--students $(STUDENTS))

words: | $(READY) ## fine-tune a student on word problems, after PILOT=1: hours with bfloat16 units or a GPU (WORKERS=6)
	$(PY) -m lalp.paper.words$(if $(PILOT),.pilot) $(if $(WORKERS),--workers $(WORKERS))

# The plan of a profile: rsr has commands of its own. Stages run by Snakemake: ON=slurm, kubernetes or
# the folder of another profile of it; ARGS are its options, and files to make.
planned = $(if $(filter rsr,$(PROFILE)),lalp.paper.rsr $(1),lalp.paper.scale $(1) --profile $(PROFILE))
ON_PROFILE = $(if $(wildcard lalp/paper/$(ON)/config.yaml),lalp/paper/$(ON),$(ON))
SNAKEMAKE = $(if $(ON)$(ARGS),-- $(if $(ON),--profile $(ON_PROFILE)) $(ARGS))

plan: | $(READY) ## what every stage of the paper's pipeline needs and costs (PROFILE=paper, gpu or rsr)
	$(PY) -m $(call planned,plan)

dryrun: | $(READY) ## the same pipeline in small, every stage, in minutes on a CPU (PROFILE=paper, gpu or rsr)
	$(PY) -m $(call planned,dryrun)

pipeline: | $(READY) ## the same for real: GPUs, hours to days (PROFILE=paper, gpu or rsr; ON=slurm; ARGS=-np)
	$(PY) -m $(call planned,run) $(SNAKEMAKE)

refresh: $(EXECUTED) ## put the executed notebooks (default profile) into notebooks/, without noise
	@test "$(PROFILE)" = cpu || { echo "only PROFILE=cpu is committed"; exit 2; }
	$(PY) -m lalp.paper.refresh $(OUT) notebooks
	$(PY) -m nbconvert --log-level WARN --to notebook --ClearOutputPreprocessor.enabled=True notebooks/$(OWN).ipynb \
	  --output-dir lalp/report --output your_pool.ipynb
	touch $(EXECUTED)

clean: ## remove what notebooks and scoring computed
	rm -rf $(BUILD)

distclean: clean ## remove the environment as well
	rm -rf $(VENV)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
