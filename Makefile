# Thirteen verbs. Everything that they need goes into .venv, made from the machine's python3 alone
# (3.11 to 3.13, as langwatch-scenario's packages have it).
#   make demo    two phone calls with real speech, without an account (also the quickest look)
#   make test    the whole suite        make lint    style, types, who may import whom
#   make bench   the benchmark: 15 minutes, and writes the pages; or BENCH=--quick, 3 minutes. A whole
#                run also has latency, what a stack costs at rest, and how soon 100 calls are up
#   make bench-capacity  the most calls that arrive whole, on 1, 2 and 4 gateways and workers
#   make docs    what is drawn from the code, in docs/
#   make site    the documentation as a site, in out/site
#   make chaos   20 calls talk while every process is killed: 10 minutes, or CHAOS="--seconds 60";
#                CHAOS="--alone" has each kind of fault once, and no other near it
#   make hosts   50 calls talk while three hosts (network namespaces, so as root) are cut off, killed,
#                and far from one another: 4 minutes, or HOSTS="--calls 6 --only killed"
#   make hostile  20 calls talk while strangers, thieves and a rogue attack the stack: 5 minutes, or
#                HOSTILE="--seconds 60"
#   make fuzz    looks for inputs that nobody foresaw: 5 minutes, or FUZZ="--seconds 20 --seed 1"
#   make simulate  the control plane on a fake clock, faults by seed, and whether it finds faults that
#                are put into the product: SIMULATE="--seeds 20000", or "--seed N" to replay one
#   make clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Once all of requirements.txt is installed, and trunkline as it stands here.
DEV := $(VENV)/.dev-installed
SOURCES_OF_INSTALL := requirements.txt pyproject.toml setup.py
# Debian's packages of the programs that tests and lint run.
PROGRAMS := chromium graphviz iproute2 nftables postgresql prometheus systemd

# The tests start hundreds of processes, and each would compile the code once more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-units test-calls test-measures lint bench bench-capacity chaos hosts hostile fuzz simulate docs site clean programs

demo: $(DEV)
	$(BIN)/trunkline demo

# Three parts, one after the other. Units mostly compute. Calls mostly wait, so there are more of them
# at once. Units are not run beside calls: what judges sound wants the processes of its stack to have a
# core when they need one. Tests that measure holes or delays, or judge calls, wait most of their time.
# tests/conftest.py says which tests a worker takes.
test: $(DEV)
	@$(MAKE) --no-print-directory --keep-going --jobs 1 test-units test-calls test-measures

test-units: $(DEV) programs
	$(BIN)/pytest -q -m "not e2e" -n 4 --dist loadscope

test-calls: $(DEV) programs
	$(BIN)/pytest -q -m "e2e and not measures" -n 5 --dist loadscope

test-measures: $(DEV) programs
	$(BIN)/pytest -q -m measures -n 4 --dist loadscope tests/dropin tests/e2e tests/survival

# Where one of them is missing, and we are root on Debian or a system like it, apt installs it. Elsewhere
# the tests that need it say so.
programs:
	@dpkg --status $(PROGRAMS) >/dev/null 2>&1 || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null \
	    || { echo "installing $(PROGRAMS)"; apt-get update -qq \
	    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PROGRAMS) >/dev/null; }

lint: $(DEV) programs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_imports.py
	$(BIN)/python tools/check_owners.py
	$(BIN)/python tools/check_map.py
	$(BIN)/python tools/check_explanation.py
	$(BIN)/python tools/check_deploy.py
	$(BIN)/deptry . --no-ansi
	$(BIN)/python docs/make_bus.py --check
	$(BIN)/python docs/make_states.py --check
	$(BIN)/python docs/make_metrics.py --check
	$(BIN)/python docs/make_dashboard.py --check
	$(BIN)/python docs/make_reference.py --check
	$(BIN)/python docs/make_python.py --check

bench: $(DEV)
	$(BIN)/python benchmarks/run.py $(BENCH)

bench-capacity: $(DEV)
	$(BIN)/python benchmarks/capacity.py $(CAPACITY)

chaos: $(DEV)
	$(BIN)/python benchmarks/chaos.py $(CHAOS)

hosts: $(DEV) programs
	$(BIN)/python benchmarks/hosts.py $(HOSTS)

hostile: $(DEV)
	$(BIN)/python benchmarks/hostile.py $(HOSTILE)

fuzz: $(DEV)
	$(BIN)/python -m tests.fuzz $(FUZZ)

simulate: $(DEV)
	$(BIN)/python -m tests.simulation $(SIMULATE)

docs: $(DEV)
	@for script in docs/make_*.py; do echo "$$script"; $(BIN)/python "$$script" || exit 1; done

site: $(DEV) programs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-peers build dist out ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trunkline needs Python 3.11 or later; set PYTHON=")'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 14) and "langwatch, which the demo and the tests need, stops at Python 3.13: set PYTHON=python3.13 (trunkline itself installs: pip install .)")'
	@test -L trunkline/bus || { echo "the symbolic links of this checkout were lost (a zip download loses them): clone with git" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Each file has the hash that requirements.txt names. trunkline itself is built by the setuptools of
# that list, and not by one that pip would fetch for it. pip compiles on one core, which takes 40 s of
# it, so that is done behind it on all cores; a file that is no Python is left as it is.
$(DEV): $(SOURCES_OF_INSTALL) | $(BIN)/python
	@echo "installing trunkline and its developers' tools into $(VENV) (a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --requirement requirements.txt \
	    || { echo "the packages were not installed: pip needs a network, or a package index of yours (PIP_INDEX_URL)" >&2; exit 1; }
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $@
