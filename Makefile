# Two commands do everything on a bare machine with Python and make:
#   make demo   installs what is missing, then runs the main job on the simulator
#   make test   installs what is missing, then runs the tests
# `pytest tests/hostile -m battery` runs the longer half of the hostile input, which `make test` leaves out.
# `make setup` only installs; `. .venv/bin/activate` then puts `lidistill` on a shell's path.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# How often a waiting OpenMP thread spins before it sleeps: often enough for the many short parallel regions of a
# training step, and rarely enough to yield to other processes on a busy machine. Threads that slept at once made steps
# take half as long again; threads that never slept slowed all other processes.
export GOMP_SPINCOUNT ?= 20000

.PHONY: setup demo test lint check format catalogue clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev]'
	touch $@

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/lidistill demo --out runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

catalogue: $(STAMP)
	$(BIN)/python -m lidistill.jobs.method_catalogue

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
