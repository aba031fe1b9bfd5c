# Two commands on a fresh machine: `make train` and `make test`. Each makes .venv if it is missing.
# `make quick` runs the tests that start no process and train for no longer than moments.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test quick lint bench clean

train: $(VENV)/installed
	$(BIN)/python recipes/timit/train.py

test: $(VENV)/installed
	$(BIN)/python -m pytest -q

quick: $(VENV)/installed
	$(BIN)/python -m pytest -q -m "not slow"

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python bench/run.py

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
