# The few words a newcomer needs. Everything is installed into .venv; nothing outside this folder is touched.
#   make demo TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu     PyTorch without CUDA: 2 GB less to fetch

PYTHON ?= python3
TORCH_INDEX_URL ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test lint clean benchmark-accuracy benchmark-serving benchmark-training-speed

help:
	@echo "make demo     set up, real data, train, evaluate, export, promote, then the service and its page"
	@echo "make serve    the service alone, with the version that was promoted last"
	@echo "make test     set up, then every check and test"
	@echo "make lint     ruff and mypy alone"
	@echo "make benchmark-accuracy DATA=FOLDER   trains on the sets in FOLDER and writes docs/benchmarks/accuracy.md; hours"
	@echo "make benchmark-training-speed DATA=FOLDER   beside RecTools, in a virtual environment of its own; several hours"
	@echo "make benchmark-serving   what the service takes, against its targets; writes docs/benchmarks/serving.md; needs wrk; ten minutes"
	@echo "make clean    remove .venv and caches; data/, runs/ and model_artifacts/ stay"

setup: $(STAMP)

# The stamp is as new as the last complete installation: a second run installs nothing.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) found; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"make: $(PYTHON) is Python {v[0]}.{v[1]}, and 3.11 or newer is needed; name another one: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@# setuptools warns of every editable installation
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) --editable '.[train]' --group dev
	@touch $(STAMP)

# What tests of the optional extras need; the demo does without.
$(STAMP)-extras: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train,tune,tracking]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m scripts.demo

benchmark-accuracy: $(STAMP)
	@test -n "$(DATA)" || { echo "make: name the folder that holds ml-1m, beauty and sports: make benchmark-accuracy DATA=FOLDER" >&2; exit 1; }
	$(BIN)/python -m scripts.benchmark accuracy --data-folder $(DATA)

# RecTools pins older versions of what we use ourselves, so it gets an environment of its own.
.venv-rectools/installed: $(STAMP)
	$(PYTHON) -m venv .venv-rectools
	.venv-rectools/bin/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) 'rectools[torch]==0.19.0'
	@touch $@

benchmark-training-speed: $(STAMP) .venv-rectools/installed
	@test -n "$(DATA)" || { echo "make: name the folder that holds beauty and ml-1m: make benchmark-training-speed DATA=FOLDER" >&2; exit 1; }
	$(BIN)/python -m scripts.benchmark training-speed --data-folder $(DATA) --peer-python .venv-rectools/bin/python

benchmark-serving: $(STAMP)
	$(BIN)/python -m scripts.benchmark serving

serve: $(STAMP)
	$(BIN)/python -m app

lint: $(STAMP)-extras
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: $(STAMP)-extras lint
	$(BIN)/pytest

clean:
	rm -rf $(VENV) .venv-rectools build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
