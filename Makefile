# `make demo` and `make test` are all it takes on a fresh clone: Python 3.11 or newer and make are enough.
# Each target installs what it needs into .venv, and again only when pyproject.toml or constraints.txt changed.

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
SOURCES := $(wildcard oncetask tests benchmarks examples functions)
ARGS ?=
SEEDS ?= 1000

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint format bench coverage simulate chaos soak mutations audit constraints clean

help:
	@echo 'make demo         show it at work, without any account (ARGS= for its options)'
	@echo 'make test         run the whole test suite (ARGS= for pytest; -n 0 for one process)'
	@echo 'make lint         ruff, mypy, import-linter, codespell'
	@echo 'make format       let ruff format and mend what it can'
	@echo 'make bench        run the benchmarks, into bench.json (ARGS= for their options: --only throughput, say)'
	@echo 'make coverage     run the tests and show what they do not reach'
	@echo 'make simulate     workers in a made-up world where everything goes wrong, SEEDS=10000 times'
	@echo 'make chaos        real processes that are killed, stopped and cut off, on both stores (ARGS="--store sqlite")'
	@echo 'make soak         ten minutes of steady load on each store: what grows? (ARGS="--store emulator --minutes 2")'
	@echo 'make mutations    make plausible mistakes on purpose: does a test notice?'
	@echo 'make audit        known vulnerabilities, where they can be asked for, and licences of what oncetask depends on'
	@echo 'make constraints  resolve constraints.txt anew'
	@echo 'make clean        remove .venv and caches'

demo: $(VENV)/.installed-runtime
	@$(BIN)/oncetask demo $(ARGS)

test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/codespell
	@if command -v terraform >/dev/null; then terraform fmt -check -diff -recursive deploy/terraform; fi

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-test
	@$(BIN)/python -m benchmarks $(ARGS)

coverage: $(VENV)/.installed-test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

simulate: $(VENV)/.installed-test
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

chaos: $(VENV)/.installed-test
	@$(if $(ARGS),$(BIN)/python -m tests.chaos $(ARGS),$(BIN)/python -m tests.chaos --store sqlite && $(BIN)/python -m tests.chaos --store emulator)

soak: $(VENV)/.installed-test
	@$(if $(ARGS),$(BIN)/python -m tests.soak $(ARGS),$(BIN)/python -m tests.soak --store sqlite && $(BIN)/python -m tests.soak --store emulator)

mutations: $(VENV)/.installed-test
	@$(BIN)/python -m tests.mutations $(ARGS)

# pip-audit stands in an environment of its own: what it depends on is none of ours.
audit: $(VENV)/.installed-dev
	@test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && \
	    $(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; } || true
	@$(BIN)/python -m tests.audit --pip-audit $(VENV)/audit/bin/pip-audit $(ARGS)

# The last step makes the stamp, so that an interrupted installation is done again.
$(VENV)/.installed-runtime: pyproject.toml constraints.txt $(VENV)/.created
	@echo 'Installing oncetask into $(VENV) ...'
	@$(INSTALL) '.'
	@touch $@

$(VENV)/.installed-test $(VENV)/.installed-dev: $(VENV)/.installed-%: pyproject.toml constraints.txt $(VENV)/.created
	@echo 'Installing oncetask[$*] into $(VENV) ...'
	@$(INSTALL) '.[$*]'
	@touch $@ $(VENV)/.installed-runtime

# Sets $$python to the first Python that is new enough and can make virtual environments, or says what is wrong.
find_python = old= novenv= python=; \
	for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	    version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { old="$$old $$candidate ($$version)"; continue; }; \
	    "$$candidate" -c 'import ensurepip, venv' 2>/dev/null || { novenv="$$novenv $$candidate ($$version)"; continue; }; \
	    python=$$candidate; break; \
	done; \
	if [ -z "$$python" ]; then \
	    echo 'oncetask needs Python 3.11 or newer.' >&2; \
	    if [ -n "$$novenv" ]; then echo "Found, but without the venv module:$$novenv. On Debian and Ubuntu: apt install python3-venv" >&2; \
	    elif [ -n "$$old" ]; then echo "Found only:$$old. Install a newer one, or name it: make PYTHON=/path/to/python" >&2; \
	    else echo 'Found no Python at all. Install one, or name it: make PYTHON=/path/to/python' >&2; fi; \
	    exit 1; \
	fi

$(VENV)/.created:
	@$(find_python); "$$python" -m venv --clear $(VENV)
	@touch $@

# Newest versions that fit, found in an environment of its own; pip freeze writes names and versions, nothing else.
constraints:
	@$(find_python); \
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	"$$python" -m venv "$$scratch" && \
	"$$scratch/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]' && \
	{ echo '# What was tested, every version of it. Made by `make constraints`; used with pip install -c.'; \
	  "$$scratch/bin/python" -m pip freeze --exclude-editable; } > "$$scratch/constraints.txt" && \
	if grep -n ' @ \|://' "$$scratch/constraints.txt"; then \
	    echo 'These lines name places instead of versions; constraints.txt stays as it is.' >&2; exit 1; fi; \
	cp "$$scratch/constraints.txt" constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* build dist
