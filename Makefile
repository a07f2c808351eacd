# Every target does its own set-up. Other Python: `make serve PYTHON=python3.12`.
# Flags for the command itself: `make serve ARGS="--port 9000"`, `make test ARGS="-k config"`.

PYTHON ?= python3
ARGS ?=
VENV_PYTHON := .venv/bin/python

.PHONY: serve test lint format bench soak fuzz install install-dev

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

# The engine beside the bare loop, then a server of this checkout through HTTP.
bench: install-dev
	$(VENV_PYTHON) benchmarks/engine.py $(ARGS)
	$(VENV_PYTHON) benchmarks/throughput.py $(ARGS)

# Half an hour of mixed load: `make soak ARGS="--minutes 5"`.
soak: install-dev
	$(VENV_PYTHON) benchmarks/soak.py $(ARGS)

# Hours: 20,000 malformed requests, 2,000 damaged model files, 5,000 hostile texts.
fuzz: install-dev
	INGLE_FUZZ=20000 $(VENV_PYTHON) -m pytest tests/fuzz/test_http.py $(ARGS)
	INGLE_FUZZ=2000 $(VENV_PYTHON) -m pytest tests/fuzz/test_gguf.py $(ARGS)
	INGLE_FUZZ=5000 $(VENV_PYTHON) -m pytest tests/fuzz --ignore tests/fuzz/test_http.py --ignore tests/fuzz/test_gguf.py $(ARGS)

install:
	@$(PYTHON) engine/install.py

install-dev:
	@$(PYTHON) engine/install.py --dev
