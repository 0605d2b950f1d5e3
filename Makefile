# make demo   sets itself up and finds the smallest workable model for the built-in job `commands`
# make test   sets itself up and runs every check
# make assessment DATA=DIR [OUT=runs/assessment] [QUICK=1]   docs/assessment.md from nothing, in another folder: about a day, by estimate
# make wasm   builds libfry for pages again (clang with wasm32, wasm-ld); what it makes is kept with the sources
# make test-parity   installs lm-eval too and asks it and smallfry the same items
# make fuzz   training kernels of random sizes, ten minutes of libFuzzer, 100,000 malformed files; under sanitizers, with clang
# make fuzz-short   the same in half a minute
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

OUT ?= runs/assessment

.PHONY: demo assessment test test-parity lint wasm clean fuzz fuzz-short

$(READY): pyproject.toml setup.py $(wildcard src/smallfry/engine/fry/*.[ch] src/smallfry/engine/fry/train/*)
	@$(PYTHON) -c 'import sys; sys.exit("smallfry needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || (echo "python venv is missing: apt-get install python3-venv"; exit 1)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/smallfry assess commands --target 0.95 --rungs 0.25m,1m --seeds 2 --form inline --vocab 2048 --budget 5m --seed 1 --out runs/demo --force

test: $(READY) lint
	$(BIN)/python -m pytest -n auto --dist worksteal

assessment: $(READY)
	@test -n "$(DATA)" || (echo "make assessment DATA=DIR: name the folder of the public data"; exit 1)
	$(BIN)/python benchmarks/assessment.py --data "$(DATA)" --out "$(OUT)" $(if $(QUICK),--quick)

test-parity: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,harness]'
	$(BIN)/python -m pytest -q -rs --show-capture=no tests/parity

fuzz: $(READY)
	@command -v clang >/dev/null || (echo "clang is not installed; libFuzzer is part of it: apt-get install clang"; exit 1)
	$(BIN)/python -m tests.train.exercise --rounds 200
	$(BIN)/python -m tests.fuzz.run --seconds 600 --files 100000

fuzz-short: $(READY)
	@command -v clang >/dev/null || (echo "clang is not installed; libFuzzer is part of it: apt-get install clang"; exit 1)
	$(BIN)/python -m tests.fuzz.run --short --seconds 8 --files 2000

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/smallfry claims --check

wasm:
	sh src/smallfry/export/web/build

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info
