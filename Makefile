# Two commands set the project up and use it: `make demo` and `make test`. Everything lands in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench attacks fuzz clean
SECONDS ?= 600
BUNDLES ?= 100000

demo: .venv/ready
	$(BIN)/fgtrac demo cnn

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks attacks examples fuzz verifier
	$(BIN)/ruff format --check src tests benchmarks attacks examples fuzz verifier
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready
	@for benchmark in $(filter-out benchmarks/harness.py benchmarks/retrainings.py benchmarks/peers.py,$(wildcard benchmarks/*.py)); do \
		$(BIN)/python $$benchmark --json || exit 1; done

attacks: .venv/ready
	$(BIN)/python attacks/run.py

# Every parser, about SECONDS by the clock in all (some 5 s each at least), then BUNDLES changed bundles; figures are
# printed, and any finding is a failure.
fuzz: .venv/fuzz-ready
	$(BIN)/python fuzz/worst_cases.py
	$(BIN)/python fuzz/run.py $(SECONDS)
	$(BIN)/python fuzz/mutated_bundles.py $(BUNDLES)

.venv/fuzz-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]' -c constraints.txt
	touch $@

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,peers]' -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps kronfluence==1.0.1 vyper==0.4.3 -c constraints.txt
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
