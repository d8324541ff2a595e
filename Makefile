# Two commands are enough: `make run` serves the studio, `make test` proves it.
# Both make the virtual environment first and install the pins again only when they have changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
STUDIO_HOME ?= workspace
APT := [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get
export HF_HUB_DISABLE_TELEMETRY = 1
export GRADIO_ANALYTICS_ENABLED = False
export PYTHONDONTWRITEBYTECODE =

.PHONY: run setup test test-fast test-slow check format browser bench-%

run: $(VENV)/.run-pins
	$(PY) app.py --home $(STUDIO_HOME) $(ARGS)

setup: $(VENV)/.dev-pins browser

$(PY):
	$(PYTHON) -m venv $(VENV)

# torch first and alone: a plain range asked for by another package would pull a CUDA build where there is no GPU.
$(VENV)/.run-pins: requirements.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev-pins: requirements-dev.txt $(VENV)/.run-pins
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# The browser tests skip themselves, by name, when there is no Chromium and no way to install it.
browser: | $(VENV)/.headless
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| { $(APT) update -qq && $(APT) install -y -qq chromium >/dev/null; } \
	|| echo "No Chromium found and it cannot be installed here: browser tests will be skipped (install chromium, then run again)."

# The same browser without its windows takes half the processor time; tried once, the tests do as well without it.
$(VENV)/.headless: | $(PY)
	@command -v chromium-headless-shell >/dev/null \
	|| { $(APT) update -qq && $(APT) install -y -qq chromium-headless-shell; } >/dev/null 2>&1 || true
	@touch $@

# Several at a time: most tests wait for a browser or a child process. A file stays on one side, so that what its tests share is made
# once, and begins in its turn: the longest would else come last and alone. A thread each: more than there are cores would wait for
# one another. A process that ends in the middle of a test ends all: its file would be begun again, and end again.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest
IN_ORDER := --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: setup
	$(PYTEST) -n 4 $(IN_ORDER) -m "not slow" $(ARGS)

test-fast: setup
	$(PYTEST) -n 2 $(IN_ORDER) -m "not slow and not browser and not model and not app and not long" $(ARGS)

test-slow: setup
	$(PYTEST) -n 2 $(IN_ORDER) -m slow $(ARGS)

check: $(VENV)/.dev-pins
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev-pins
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench-%: setup
	HF_HUB_OFFLINE=1 STUDIO_HOME=$(abspath $(STUDIO_HOME)) $(PY) -m tests.bench.$*
