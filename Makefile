# The two commands are `make run` and `make test`; each sets up what it needs and a second call starts at once.
# Needs python3 >= 3.11 with venv, and make (GNU 3.81 or later: what macOS ships).

VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
CLIENTS_VENV := .venv-clients
SETUP := sh scripts/setup.sh
CONFIG ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test slow lint format lock bench bench-crossings demo replay faults chaos fuzz soak clean clients

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile

run: $(VENV)/.stamp-runtime ## serve on :8080 with the provider keys of the environment (CONFIG=file.yaml to use a file)
	@exec $(BIN)/llm-gateway serve $(if $(CONFIG),--config $(CONFIG))

test: $(VENV)/.stamp-dev ## all tests (ARGS="tests/config -k name" for some)
	@sh scripts/test.sh $(ARGS)

slow: $(VENV)/.stamp-dev ## the tests that take their time: real processes that wait, break and come back (not the fault matrix)
	@MARK=slow sh scripts/test.sh tests --ignore=tests/faults $(ARGS)

lint: $(VENV)/.stamp-dev ## ruff, mypy --strict, pyright, import law
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.stamp-dev ## what ruff can repair by itself
	$(BIN)/ruff check --fix .

lock: $(VENV)/.stamp-bootstrap ## recompile requirements/*.txt from *.in, nothing younger than a week
	sh scripts/lock.sh

bench: $(VENV)/.stamp-dev $(BENCH_VENV)/.stamp ## ours beside nginx, Envoy and the peers, in one run
	$(BIN)/python bench/run.py $(ARGS)

bench-crossings: $(VENV)/.stamp-dev ## what each pair of shapes costs to cross (ARGS="--publish" into docs/benchmarks.md)
	$(BIN)/python bench/crossings.py $(ARGS)

demo: $(VENV)/.stamp-dev $(BENCH_VENV)/.stamp ## a real small LLM behind the gateway holds a streamed conversation
	$(BIN)/python bench/demo.py $(ARGS)

replay: $(VENV)/.stamp-dev ## all recorded traffic through every shape, each result by name in docs/replay.md
	$(BIN)/python tests/replay/report.py
	EVERY_CUT=1 $(BIN)/python -m pytest -q -n auto tests/formats -m sampled $(ARGS)

faults: $(VENV)/.stamp-dev ## everything that may go wrong, against real processes, each row in docs/faults.md
	@sh scripts/faults.sh $(ARGS)

chaos: $(VENV)/.stamp-dev ## all faults at once, by dice, against shared state; then the books are checked (SECONDS=120 SEED=7 REDIS=cluster)
	$(BIN)/python tests/faults/everything.py --seconds $(or $(SECONDS),120) $(if $(SEED),--seed $(SEED)) --redis $(or $(REDIS),alone)

fuzz: $(VENV)/.stamp-dev ## requests and streams damaged at random, for minutes (FUZZ=examples)
	FUZZ=$(or $(FUZZ),20000) $(BIN)/python -m pytest -q -n auto tests/ingress/test_fuzz.py tests/formats/test_fuzz.py $(ARGS)

clients: $(VENV)/.stamp-dev $(CLIENTS_VENV)/.stamp ## LiteLLM, LangChain, pydantic-ai, the Node SDKs and Vercel's AI SDK against the gateway
	LLM_GATEWAY=$(CURDIR)/$(BIN)/llm-gateway $(CLIENTS_VENV)/bin/python -m pytest -q -n auto --dist loadscope --confcutdir=tests/clients tests/clients $(ARGS)

soak: $(VENV)/.stamp-dev ## flat memory over 300,000 requests and 20,000 cancelled streams (long)
	$(BIN)/python bench/soak.py $(ARGS)

clean: ## remove what the above made, but not ./data
	rm -rf $(VENV) $(BENCH_VENV) $(CLIENTS_VENV) tests/clients/node/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.stamp-bootstrap: requirements/bootstrap.txt scripts/setup.sh
	@$(SETUP) bootstrap $(VENV)

$(VENV)/.stamp-runtime: $(VENV)/.stamp-bootstrap requirements/runtime.txt pyproject.toml
	@$(SETUP) runtime $(VENV)

$(VENV)/.stamp-dev: $(VENV)/.stamp-runtime requirements/dev.txt
	@$(SETUP) dev $(VENV)

$(BENCH_VENV)/.stamp: $(VENV)/.stamp-bootstrap requirements/bench.txt requirements/bench-nodeps.txt
	@$(SETUP) bench $(BENCH_VENV) $(VENV)

$(CLIENTS_VENV)/.stamp: $(VENV)/.stamp-bootstrap requirements/clients.txt tests/clients/node/package-lock.json
	@$(SETUP) clients $(CLIENTS_VENV) $(VENV)
