# The four commands. Each sets up what it needs the first time: a virtual environment in .venv with
# the pinned packages of pyproject.toml, and the system libraries that Qt and VTK load.
#   make demo PYTHON=python3.12     chooses the Python that .venv is made with

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test bench lint

help:
	@echo "make demo    a simulated sweep over a head, written to demo/"
	@echo "make test    all tests"
	@echo "make bench   speed and memory, written to bench/"
	@echo "make lint    ruff: rules and format"

demo: $(READY)
	$(BIN)/python Testing/tools/demo.py demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: $(READY)
	$(BIN)/python Testing/Benchmarks/benchmark.py bench

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A new package (one more __init__.py) needs a new editable install too.
$(READY): pyproject.toml Testing/setup.sh $(wildcard DiffUS*/*/__init__.py)
	bash Testing/setup.sh $(PYTHON)
	@touch $@
