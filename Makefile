# The commands of the project. A newcomer needs python3, Java and make: `make demo`, then `make test`.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Each worker starts servers of its own.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo up down seed status password browser test test-slow bench lint format lock clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## Install what is missing into .venv, from the lock

$(INSTALLED): requirements/dev.txt requirements/uv.txt pyproject.toml local/install.sh
	@PYTHON="$(PYTHON)" bash local/install.sh

demo: $(INSTALLED)  ## Start the stack, ingest real recordings through Airflow and Spark, show the result (AUDIO=<folder>: your own)
	@$(BIN)/python -m local demo $(if $(AUDIO),--audio "$(AUDIO)")

up: $(INSTALLED)  ## Start the embedded stack: S3, TimescaleDB, Airflow, the explorer
	@$(BIN)/python -m local up

down:  ## Stop the embedded stack
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local down; fi

seed: $(INSTALLED)  ## Put the demo's recordings into the bucket
	@$(BIN)/python -m local seed $(if $(AUDIO),--audio "$(AUDIO)")

status: $(INSTALLED)  ## Show the services of the stack and their addresses
	@$(BIN)/python -m local status

password: $(INSTALLED)  ## Print the password of the Airflow user
	@$(BIN)/python -m local password

# Where there is one, this costs nothing.
browser:
	@bash local/browser.sh

test: $(INSTALLED) browser  ## Run the tests against real servers (ARGS="-k word": some of them, in one process)
	@$(BIN)/python -m pytest -m "not slow" $(or $(ARGS),$(WORKERS))

test-slow: $(INSTALLED) browser  ## Run the longer scenarios
	@$(BIN)/python -m pytest -m slow $(or $(ARGS),$(WORKERS))

bench: $(INSTALLED)  ## Measure against peers; figures go to bench/results.json
	@$(BIN)/python -m bench

lint: $(INSTALLED)  ## Check format, style, types and import directions
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED)
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock:  ## Resolve the dependencies anew into requirements/
	@bash local/lock.sh

clean: down  ## Remove everything that was installed or stored
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local clean; fi
	@rm -rf .venv .spectralize bench/results.json bench/results.png .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
