# `make demo`, `make photos PICTURES=DIR` and `make test` set themselves up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
DATA ?= ../shared/data/flickr8k
JOBS ?= 2
READY := $(VENV)/.ready

# Child processes of the tests import tshsr anew: compiled files are kept, whatever the environment says of them.
unexport PYTHONDONTWRITEBYTECODE
# Workers of the tests: one a usable core; 0 runs them in one process, for a debugger.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest --quiet
PARALLEL := --numprocesses $(WORKERS) --dist worksteal

# Debian's names of a browser and what drives it.
BROWSER := chromium chromium-driver

.PHONY: demo photos unnamed test slow test-browser browser browser-if-possible check style docs release quality bench faults kills clocks soak fuzz load reliability security audit platforms clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "tshsr needs Python >= 3.11; name one with make PYTHON=python3.12"; exit 1)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/tshsr demo --out demo
	@echo "(tshsr is $(BIN)/tshsr here; after . $(BIN)/activate the commands above work as they stand)"

# A page that searches your own photographs: make photos PICTURES=DIR.
photos: $(if $(PICTURES),,unnamed) $(READY)
	$(BIN)/tshsr photos "$(PICTURES)"

unnamed:
	@echo "name a folder of pictures: make photos PICTURES=DIR"; exit 1

# Format, lint, types and the order of imports.
check: style
	$(PYTEST) --noconftest tests/test_layers.py

style: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src 2>/dev/null

test: style $(if $(CI),browser-if-possible)
	$(PYTEST) $(PARALLEL)

# The slow tests alone, with their durations; `make test` runs them too.
slow: $(READY)
	$(PYTEST) $(PARALLEL) -m slow --durations=0 --durations-min=0.1

# The page of `tshsr serve` in a real browser. `make test` has these tests too, and skips them where there is none.
test-browser: $(READY) browser
	$(PYTEST) tests/server/browser

browser:
	command -v chromedriver || (apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends $(BROWSER))

browser-if-possible:
	@$(MAKE) browser >/dev/null 2>&1 || echo "no browser can be installed here; its tests are skipped"

# The documentation as a site in build/docs, without a network; a warning is an error.
docs: $(READY)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --builder html docs build/docs

# Wheel and sdist; the wheel is tested in clean environments, with the newest and the lowest versions of what it needs.
release: $(READY)
	$(BIN)/python -m tests.support.release

# The race of all methods on scenes, and on Flickr8k where DATA is; finished runs are not done again.
quality: $(READY)
	$(BIN)/python -m benchmarks.race --data scenes --jobs $(JOBS)
	if [ -d $(DATA) ]; then $(BIN)/python -m benchmarks.race --data $(DATA) --jobs $(JOBS) && $(BIN)/python -m benchmarks.race --data $(DATA) --jobs $(JOBS) --ablation; else echo "no Flickr8k at $(DATA): name it with make quality DATA=DIR"; fi

# Speed, memory and training steps of this machine, into benchmarks/results.
bench: $(READY)
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.training

# Reliability, into reliability/results: failing system calls, SIGKILL at random moments, 30 minutes side by side; the page.
faults: $(READY)
	$(BIN)/python -m reliability.faults

kills: $(READY)
	$(BIN)/python -m reliability.kills

# Long jobs and a server while the wall clock jumps; needs Linux and a C compiler.
clocks: $(READY)
	$(BIN)/python -m reliability.clocks

soak: $(READY)
	$(BIN)/python -m reliability.soak

# 100,000 mutated inputs, shared by all readers, into reliability/results.
fuzz: $(READY)
	$(BIN)/python -m reliability.fuzz

reliability: $(READY)
	$(BIN)/python -m reliability.page

# The server with 500 clients of every kind beside an index update, for 30 minutes.
load: $(READY)
	$(BIN)/python -m reliability.load

# The tests of each row of SECURITY.md, counted.
security: $(READY)
	$(BIN)/python -m reliability.security

# Installed packages against the database of known vulnerabilities, over the network; pip-audit has an environment of its own.
audit: $(READY)
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > build/audit/installed.txt
	build/audit/bin/pip-audit --strict --requirement build/audit/installed.txt --no-deps --disable-pip

# What differs between systems: locks, signals, names, the allocator. The campaigns need Linux.
platforms: $(READY)
	$(PYTEST) tests/reliability tests/test_files.py tests/test_system.py tests/training/test_stopping.py tests/training/test_resume.py

clean:
	rm -rf $(VENV) demo build dist
