# Every target makes the virtual environment it needs; nothing has to be installed by hand.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STORAGE ?= $(CURDIR)/runs
PACKAGES := emojibase-data @lobehub/fluent-emoji-3d $(addprefix @iconify-json/,noto noto-v1 fluent-emoji \
	fluent-emoji-flat fluent-emoji-high-contrast fxemoji ph tabler lucide material-symbols mdi hugeicons iconoir carbon)
export SSD1B_HOME := $(STORAGE)
export SSD1B_COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo reproduce-nano serve test check bench corpus ui clean

demo: $(VENV)/ready  ## corpus to endpoint, once, on this machine; the gallery is runs/demo/gallery.png
	$(BIN)/python -m cluster.local -- $(BIN)/python -m jobs.demo nano

reproduce-nano: $(VENV)/ready  ## teacher, three stages, student, beside the announcement; about half an hour
	$(BIN)/python -m cluster.local -- $(BIN)/python -m jobs.reproduce nano

serve: $(VENV)/ready  ## serve the champion on 127.0.0.1:8000 until Ctrl-C
	$(BIN)/python -m serve.app up

test: $(VENV)/ready  ## on two cores at once
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/ready  ## teacher against student, engine against engine
	$(BIN)/python -m jobs.benchmark engine

corpus: $(VENV)/ready  ## the whole corpus: 8 emoji packages, 8 icon sets (needs npm)
	npm install --prefix $(STORAGE)/npm --ignore-scripts --no-audit --no-fund $(PACKAGES)
	$(BIN)/python -m jobs.ingest emoji_icons --set packages=$(STORAGE)/npm/node_modules

ui: $(VENV)/ready  ## the MLflow pages of what ran here, on 127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri sqlite:///$(STORAGE)/mlflow.db --host 127.0.0.1 --port 5000

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11) and 'Python 3.11 is needed: make PYTHON=/path/to/python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:  ## forget what ran here; the environment stays
	rm -rf $(STORAGE) .pytest_cache .mypy_cache .ruff_cache .hypothesis
