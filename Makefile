# One word each, the same by hand and in CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test ui check bench constraints

demo: $(VENV)/ready  ## draw the bundled subject's photos and take them all the way to a LoRA
	$(BIN)/lora-pipeline demo

test: $(VENV)/ready  ## every test; those for which something is missing say so
	$(BIN)/python -m pytest

ui: $(VENV)/ready  ## the Dagster UI on http://127.0.0.1:3000
	$(BIN)/lora-pipeline ui

check: $(VENV)/ready  ## style, types, who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: $(VENV)/ready  ## measure again what benchmarks/ says
	$(BIN)/python -m benchmarks

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

constraints:  ## pin what is installed now, after trying newer versions by hand
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools > constraints.txt
