# Every target works on a clean checkout with Python 3.11 or later, make, and a package index.
PYTHON ?= python3
BIN := .venv/bin
PYTEST_ARGS ?= -n logical --maxprocesses 8 --dist worksteal

.PHONY: help setup demo notebooks test lint format docs bench lock check-lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/ready ## make .venv with the locked versions and the meterlake command

.venv/ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

demo: setup ## make a small lake, run the nightly job on it, print the answers
	@$(BIN)/meterlake demo

# Of the lake that METERLAKE_LAKE names, else of the demo lake. A notebook runs in its own folder, so the path must be
# a full one there.
notebooks: setup ## run the notebooks, write pages of what they show to build/notebooks
	@test -n "$$METERLAKE_LAKE" || test -f demo-lake/lake.json || $(BIN)/meterlake demo
	@lake="$${METERLAKE_LAKE:-demo-lake}"; case "$$lake" in /* | *://*) ;; *) lake="$(CURDIR)/$$lake" ;; esac; \
		$(BIN)/meterlake --lake "$$lake" meter list >/dev/null && \
		METERLAKE_LAKE="$$lake" $(BIN)/jupyter-nbconvert --execute --to html --template-file notebooks/page.html.j2 \
		--KernelManager.transport_encryption=auto --log-level ERROR --output-dir build/notebooks notebooks/*.ipynb
	@echo 'written: build/notebooks/active_users.html, build/notebooks/reconcile_billing.html'

test: lint ## lint, types, lock file, tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup check-lock ## ruff, mypy, imports, lock file
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	@broken=$$($(BIN)/lint-imports --no-logo --no-cache) || { echo "$$broken" >&2; exit 1; }

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .
	@$(BIN)/python notebooks/tidy.py

docs: setup ## write the help of every command into docs/reference/commands.md
	@$(BIN)/python -m docs.generate

bench: setup ## time Meterlake and its peers on generated events, then each promise by itself
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.landing
	$(BIN)/python -m benchmarks.night
	$(BIN)/python -m benchmarks.planning
	$(BIN)/python -m benchmarks.small_files
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.active_users

# A dry run without an index: what the lock installed must do for every requirement of pyproject.toml, those of
# `dev` and of the build backend too (`pip check` looks at neither). tests/test_locks.py checks the lock of production.
check-lock: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --dry-run --no-index --no-build-isolation \
		--check-build-dependencies --editable '.[dev]' || { echo 'requirements-dev.lock does not satisfy pyproject.toml: make lock' >&2; exit 1; }

COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	--generate-hashes --quiet

# The lock of production has the versions of the other one: what is tested is what is installed.
lock: setup ## choose the newest versions that pyproject.toml allows
	$(COMPILE) --upgrade --all-extras --output-file .venv/dev.lock pyproject.toml
	$(COMPILE) --constraint .venv/dev.lock --output-file .venv/production.lock pyproject.toml
	@{ echo '# What `make setup` installs, to work on Meterlake. `make lock` writes it.'; cat .venv/dev.lock; } > requirements-dev.lock
	@{ echo '# What Meterlake needs to run, and no more. `make lock` writes it.'; cat .venv/production.lock; } > requirements.lock

clean: ## remove what was made
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-lake
