# Two commands set everything up: `make demo` (the main job) and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test install lint clean

install: $(INSTALLED)

# torch is installed first and pinned, so that no other package chooses its build.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/equiscope demo

# One thread per process: two OpenMP threads on a busy machine are many times slower than one.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check src tests

clean:
	rm -rf .venv build dist
