# `make help` lists what there is. Each target first installs what it needs (see sphere/install/).
HOSTS ?= 3
MONITORING ?= 0
TESTS ?= tests
BIN := .venv/bin
PY := $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help install up down demo test bench lint fmt wheelhouse

help: ## List the targets.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: ## Install what is missing: Debian packages, .venv, kubectl. Quick when all is there.
	@python3 -m sphere.install.bootstrap

up: install ## Bring up a cluster on this machine (HOSTS=3 MONITORING=1), or complete it.
	@$(BIN)/sphere up --hosts $(HOSTS) $(if $(filter 1 yes true,$(MONITORING)),--monitoring)

down: install ## Take the cluster down; nothing is left behind.
	@$(BIN)/sphere down

demo: install ## Bring up a cluster, deploy examples/shop on it, and check and show that it works.
	@$(PY) -m sphere.demo

lint: install ## Check style and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fmt: install ## Format the sources.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# One pytest run, so that its last line counts everything: the quick tests first, the whole cluster's last.
test: lint ## Run all: lint, types, unit, property, contract, integration, end to end (TESTS=path for a part).
	@$(PY) -m pytest $(TESTS)

bench: install ## Measure the figures of the README on a cluster of this machine.
	@$(PY) -m tests.bench

wheelhouse: install ## Build the project and its dependencies as wheels, for ansible (build/wheelhouse).
	@$(PY) sphere/install/wheelhouse.py
