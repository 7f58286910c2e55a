# Everything runs in a virtual environment of its own, made from the lock files.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The prompt goes through the environment: no quote, `$` or backquote in it can
# reach the shell's grammar.
export KERAS_PARTI_PROMPT := $(value PROMPT)
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check coverage slow mutations examples lint types docs docs-check audit \
	wheel matrix bench evaluate lock clean

help:
	@echo 'make demo                   pictures for eight prompts, in demo.png'
	@echo 'make demo PROMPT="a red cat in google style"    a picture for yours'
	@echo 'make test                   the tests, some minutes on two cores'
	@echo 'make coverage               the same, and how many lines of the library they run'
	@echo 'make check                  what a change must pass: lint, types, docs-check, coverage,'
	@echo '                            examples and wheel, twenty minutes on two cores'
	@echo 'make slow                   the tests that take longer, examples included'
	@echo 'make mutations              deliberate bugs: does a test notice each?'
	@echo 'make examples               every example with --quick'
	@echo 'make lint                   ruff: rules and format'
	@echo 'make types                  mypy: the types of the library'
	@echo 'make docs                   docs/api.md from the docstrings; the lines that guides name'
	@echo 'make docs-check             whether these are true as they are'
	@echo 'make audit                  known holes of the locked packages; asks the network'
	@echo 'make wheel                  builds the wheel and uses it in an environment of its own'
	@echo 'make matrix                 other versions of Python, TensorFlow and Keras'
	@echo 'make bench                  the figures of docs/results.md'
	@echo 'make evaluate               the shipped model, measured: tables and a page in results/'
	@echo 'make evaluate COUNT=16      the same of few pictures, for a first look'
	@echo 'make lock                   resolves the lock files anew'
	@echo 'make clean                  removes $(VENV) and what tools left behind'

# To the newcomer it must not look as if nothing happened: TensorFlow alone is
# more than 500 MB to fetch.
$(VENV)/.runs: requirements.lock setup.py
	$(if $(PYTHON),,$(error No Python 3.11, 3.12 or 3.13 found. Name one: make PYTHON=/path/to/python3.11))
	@echo 'Installing into $(VENV) with $(PYTHON): some minutes the first time.'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --requirement requirements.lock
	@# By a path, not by a finder of imports: the clone's own folder, which may be called
	@# keras_parti, would win over that in the folder above it.
	@$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/.tests: requirements-test.lock $(VENV)/.runs
	@echo 'Installing what the tests need into $(VENV).'
	@$(PIP) install --requirement requirements-test.lock
	@touch $@

demo: $(VENV)/.runs
	@$(BIN)/keras-parti demo $(if $(findstring undefined,$(origin PROMPT)),,-- "$$KERAS_PARTI_PROMPT")

# Two at a time: each has a TensorFlow of its own, and 2 GB of memory in the end.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test: $(VENV)/.tests
	$(PYTEST)

# One after the other, the cheapest first: with -j they would share the cores.
check: $(VENV)/.tests
	$(MAKE) lint
	$(MAKE) types
	$(MAKE) docs-check
	$(MAKE) coverage
	$(MAKE) examples
	$(MAKE) wheel

coverage: $(VENV)/.tests
	$(PYTEST) --cov --cov-report=term:skip-covered

slow: $(VENV)/.tests
	$(BIN)/python -m pytest -m slow

mutations: $(VENV)/.tests
	$(BIN)/python tests/mutations.py --jobs $(JOBS)

examples: $(VENV)/.tests
	$(BIN)/python -m pytest -n $(JOBS) -m slow tests/test_examples.py --durations=0

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.tests
	$(BIN)/mypy

docs: $(VENV)/.tests
	$(BIN)/python docs/api.py
	$(BIN)/python tests/guides.py

# What `make docs` would write is there already, and links, lines and commands hold.
docs-check: $(VENV)/.tests
	$(BIN)/python -m pytest -q tests/test_api.py tests/test_guides.py tests/test_links.py

# Asks the advisories of PyPI. Without them nothing is known, which is no pass.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit==2.10.1
	@for lock in requirements.lock requirements-test.lock; do \
		build/audit/bin/pip-audit --requirement $$lock --no-deps --disable-pip --strict || { \
		echo "$$lock: a hole is known, or the advisories could not be asked: see above."; \
		exit 1; }; done

wheel: $(VENV)/.tests
	rm -rf build/lib dist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	KERAS_PARTI_WHEEL=$$(echo dist/*.whl) $(BIN)/python -m pytest -m '' tests/test_wheel.py

# Some minutes and 2 GB of downloads a cell. Names or paths, `make matrix PYTHONS=3.12`.
matrix: $(VENV)/.tests
	$(BIN)/python tests/matrix.py $(PYTHONS)

bench: $(VENV)/.tests
	@for script in benchmarks/*.py; do \
		echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

# A model end to end: tables, and a page. Goes on where it was interrupted. Variables:
# MODEL, a folder, or SERVER, HOST:PORT; DATA, captioned pictures, and SIZE, their side;
# PROMPTS, a file, without which PartiPrompts is fetched; COUNT, of pictures, for a first
# look in some minutes; OUT, a folder for each model and count.
MODEL ?= saved_models/emoji
DATA ?= emoji_captions/small
SIZE ?= 64
OUT ?= results
ASK = $(BIN)/keras-parti evaluate $(1) $(if $(SERVER),--server $(SERVER),--model $(MODEL)) \
	--guidance-scale 1 --out $(OUT)/$(1) $(if $(COUNT),--count $(COUNT))
evaluate: $(VENV)/.tests
	@echo 'Half an hour on two cores; COUNT=16 for a first look. Ctrl-C and go on at will.'
	$(call ASK,retrieval) $(if $(COUNT),,--count 50) --data $(DATA) --features joined
	$(call ASK,fid) --against $(DATA) --image-size $(SIZE)
	$(call ASK,parti-prompts) $(if $(PROMPTS),--prompts $(PROMPTS))
	@echo; for kind in retrieval fid parti-prompts; do \
		echo "== $$kind: $(OUT)/$$kind/table.md"; echo; cat "$(OUT)/$$kind/table.md"; echo; done
	@echo "The page, to open in a browser: $(OUT)/parti-prompts/report.html"

# One file serves Python 3.11 to 3.13. The test lock contains the other one.
UV := build/uv/bin/uv pip compile setup.py --universal --python-version 3.11 --upgrade \
	--no-emit-index-url --no-emit-find-links --no-annotate --quiet \
	--custom-compile-command 'make lock'
lock:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip --disable-pip-version-check --quiet install uv==0.13.9
	$(UV) --output-file requirements.lock
	$(UV) --constraint requirements.lock --extra jax --extra evaluation --extra test \
		--output-file requirements-test.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage*
