# Every target does its own set-up. Other Python: `make serve PYTHON=python3.12`.
# Flags for the command itself: `make serve ARGS="--port 9000"`, `make test ARGS="-k config"`.

PYTHON ?= python3
ARGS ?=
VENV_PYTHON := .venv/bin/python

.PHONY: serve test lint format bench install install-dev

serve: install
	@exec $(VENV_PYTHON) -m server $(ARGS)

test: install-dev
	@$(VENV_PYTHON) -m pytest $(ARGS)

lint: install-dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

format: install-dev
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

bench: install-dev
	$(VENV_PYTHON) -m benchmarks.engine $(ARGS)
	$(VENV_PYTHON) -m benchmarks.throughput $(ARGS)

install:
	@$(PYTHON) engine/install.py

install-dev:
	@$(PYTHON) engine/install.py --dev
