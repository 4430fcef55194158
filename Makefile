# `make demo` and `make test` need Python 3.11 to 3.13, git and make; both set up .venv once and reuse it.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HF_HUB_OFFLINE ?= 1
export WANDB_MODE ?= disabled

.PHONY: demo test test-all check format audit docs tutorials clean

demo: $(READY)
	$(BIN)/bae-lens demo --out runs/demo --replace

# a thread each: those of two workers on two cores would wait for each other
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-all: test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m slow
	OMP_NUM_THREADS=1 BAE_LENS_FUZZ=full $(BIN)/pytest -n 2 tests/fuzz

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# known advisories of what is installed; asks the index, so it needs the network
audit: $(READY)
	$(BIN)/pip-audit --skip-editable

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# every warning is an error; pages open from site/index.html
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# runs the notebooks, and writes what their cells print
tutorials: $(READY)
	$(BIN)/python tutorials/build.py

# torch comes first and by its exact version: a CPU build that is at hand then satisfies all the others
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found: install one, or make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build site *.egg-info
