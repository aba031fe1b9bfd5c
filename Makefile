# `make train` and `make test` need nothing but Python: they create the virtual environment .venv if it is missing.
# `make quick` leaves out slow tests. `make lint` checks format, style and types. `make bench` runs the benchmarks.
# `make docs` builds the documentation into build/docs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test quick lint bench docs clean

train: $(VENV)/installed
	$(BIN)/python recipes/timit/train.py

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

quick: $(VENV)/installed
	$(BIN)/python -m pytest -q -m "not slow"

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python bench/run.py

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --config-file recipes/docs/mkdocs.yml

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $@

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
