PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test results stress clean

demo: $(VENV)/installed  ## a TT and a dense LeNet on the UCI digits: a table and a figure
	$(BIN)/tdc train -m method=tt,dense epochs=8
	$(BIN)/tdc plot dataset=digits

test: $(VENV)/installed-dev
	$(BIN)/ruff check tdcompress scripts tests
	$(BIN)/lint-imports
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

results: $(VENV)/installed  ## the protocol of results/published again: days on two cores, and it goes on where it was
	$(BIN)/python scripts/reproduce.py out=results/reproduced

stress: $(VENV)/installed  ## runs killed at 50 random moments, 200 runs at once, figures of 10,000
	$(BIN)/python scripts/stress.py

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/installed
