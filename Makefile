# Two commands do everything on a bare machine with Python and make:
#   make demo   sets up what is missing, then the main job on the simulator
#   make test   sets up what is missing, then the tests, without the longer half of the hostile input (pytest tests/hostile -m battery)
# `make setup` sets up alone; `. .venv/bin/activate` then puts `lidistill` on a shell's path.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# Threads of a parallel region spin this often before they sleep: long enough for the many short regions of a training step, short enough to yield
# to another process on a busy machine. Sleeping at once made steps half as slow again, spinning on slowed everything beside them.
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
