# make install | demo | test | test-faults | test-ways | lint | check-lock | benchmark | lock | clean. Each target does all the set-up it needs,
# in .venv, and only once; the benchmark's peers have .venv-benchmark.
#
#     make demo                     the tables of plan.json
#     make demo CORES=4             with four jobs at a time; the result is the same
#     make install PYTHON=python3.13

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
CORES ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: install demo test test-faults test-ways lint check-lock benchmark lock clean
# A recipe that fails leaves no stamp.
.DELETE_ON_ERROR:

# What activating the environment does: programs that start others find `anchored`.
export PATH := $(BIN):$(PATH)
unexport VIRTUAL_ENV PYTHONHOME

define check_python
	@if ! "$(PYTHON)" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "error: no Python >= 3.11 with the modules venv and ensurepip was found." >&2; \
		echo "  install one (Debian, Ubuntu: python3 and python3-venv), or name it: make install PYTHON=/path/to/python" >&2; \
		exit 5; \
	fi
endef

define create_venv
	$(check_python)
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
endef

install: $(VENV)/installed

# One pip command for all packages: a later one could replace torch by another build.
$(VENV)/installed: requirements.lock pyproject.toml
	$(create_venv)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/installed-test: requirements.lock requirements-test.lock pyproject.toml
	$(create_venv)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock --requirement requirements-test.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $(VENV)/installed $@

demo: install
	$(BIN)/snakemake --cores $(CORES)
	@echo "tables: results/tables/README.md    page: results/report.html"

test: $(VENV)/installed-test
	$(BIN)/pytest

# Breaks things on a SLURM that the tests start, and writes the table of docs/reliability.md; minutes. `FAULTS=reduced`: the quickest
# of them, and no table.
FAULTS ?= full
reduced := process_of_a_job or snakemake_is_killed

test-faults: $(VENV)/installed-test
	.ci/install-slurm
	ANCHORED_REQUIRE=slurm_faults $(if $(filter reduced,$(FAULTS)),,ANCHORED_WRITE_FAULTS=1) \
		$(BIN)/pytest -m slurm_faults tests/slurm/test_faults.py $(if $(filter reduced,$(FAULTS)),-k "$(reduced)")

# The miniature study by every way of running, and the table of docs/reliability.md that compares them; minutes.
test-ways: $(VENV)/installed-test
	.ci/install-slurm --accounting
	.ci/install-containers
	ANCHORED_REQUIRE=slurm,containers ANCHORED_WRITE_WAYS=1 $(BIN)/pytest tests/test_ways.py -k one_machine

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/anchored plan --check

# Do plan, code and dvc.lock agree? Needs no results: for the CI of a study that keeps its dvc.lock (docs/dvc.md). DVC ends with 0
# also where a stage would run.
check-lock: install
	@$(BIN)/dvc repro --allow-missing --dry | tee /dev/stderr | { ! grep "^Running stage" >/dev/null; }

# Ratios of costs, each measured side by side in one run. `make benchmark QUICK=--quick` takes the demo's networks only.
benchmark: $(VENV)-benchmark/installed
	$(VENV)-benchmark/bin/python benchmarks/fisher.py --write $(QUICK)
	$(VENV)-benchmark/bin/python benchmarks/anchor_cost.py
	$(VENV)-benchmark/bin/python benchmarks/kernel.py
	$(VENV)-benchmark/bin/python benchmarks/loader.py
	$(VENV)-benchmark/bin/python benchmarks/decode.py
	$(VENV)-benchmark/bin/python benchmarks/codecs.py
	$(VENV)-benchmark/bin/python benchmarks/scale.py $(or $(QUICK),--write)
	$(VENV)-benchmark/bin/python benchmarks/slurm_overhead.py $(if $(QUICK),,--write)

# One pip command here too: the lock pins torch, and the peers ask for no other build.
$(VENV)-benchmark/installed: requirements.lock benchmarks/requirements.txt pyproject.toml
	$(check_python)
	test -x $(VENV)-benchmark/bin/python || "$(PYTHON)" -m venv $(VENV)-benchmark
	$(VENV)-benchmark/bin/python -m pip install --quiet --requirement requirements.lock --requirement benchmarks/requirements.txt
	$(VENV)-benchmark/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# The locks hold what pip chooses for pyproject.toml in a new environment. Local versions (torch's "+cpu") are cut off, so
# that every machine gets the build that its index offers.
lock:
	$(create_venv)
	@rm -rf $(VENV)-lock
	"$(PYTHON)" -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --editable ".[engines]" torch==2.13.0 torchvision==0.28.0 timm==1.0.31
	@$(freeze) > $(VENV)-lock/run
	$(VENV)-lock/bin/python -m pip install --quiet --editable ".[test]" --constraint $(VENV)-lock/run
	@$(freeze) > $(VENV)-lock/test
	{ echo "# Written by \`make lock\`: what the steps and both engines need."; cat $(VENV)-lock/run; } > requirements.lock
	{ echo "# Written by \`make lock\`: what the tests need on top."; comm -13 $(VENV)-lock/run $(VENV)-lock/test; } > requirements-test.lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	PATH="$(CURDIR)/$(VENV)-lock/bin:$$PATH" containers/lock
	rm -rf $(VENV)-lock

freeze = $(VENV)-lock/bin/python -m pip freeze --exclude-editable | sed -E 's/\+[A-Za-z0-9.]+$$//; s/^triton==.*/&; sys_platform == "linux"/' | LC_ALL=C sort

# Removes what can be made again, and no result.
clean:
	rm -rf $(VENV) $(VENV)-lock $(VENV)-benchmark .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
