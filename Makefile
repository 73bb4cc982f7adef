# animegen: everything that a fresh clone needs. `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUNS   := runs

.DEFAULT_GOAL := help
.PHONY: help install lint format type test test-all docs demo quickstart tensorboard bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/installed  ## make .venv and install animegen into it (the only step that needs a network)

$(VENV)/installed: pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit("animegen needs Python 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@

lint: install  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: install  ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: install  ## check types
	$(BIN)/mypy

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	@touch $@

docs: $(VENV)/docs  ## build the documentation site into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Two processes on two cores: one thread each; where a test takes more, those that wait leave their core to the others.
# The tests are compiled once, even where the environment forbids bytecode, as many containers do.
ALONE := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=

test: lint type  ## lint, types and the quick tests (about 11 minutes on 2 cores)
	$(ALONE) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: lint type  ## everything, the long tests too
	$(ALONE) $(BIN)/python -m pytest -n 2 --dist worksteal

quickstart: install  ## photo to anime on the generated world: train, score and look, in five minutes
	$(BIN)/animegen train experiment=animegan/quickstart output=$(RUNS)/quickstart overwrite=true
	@echo "Look at $(RUNS)/quickstart/strip.png, and at the curves with: make tensorboard"

# Steps that fit two cores in ten minutes; two families train at a time, one thread each.
DEMO_animegan      := experiment=animegan/quickstart train_steps=3000
DEMO_fewshot       := experiment=fewshot/quickstart train_steps=1200
DEMO_interpolation := experiment=interpolation/quickstart train_steps=500
DEMO_ganime        := experiment=ganime/quickstart train_steps=900 model.tokenizer_steps=600
DEMO_temporal      := experiment=temporal/quickstart train_steps=1200 data.scenes=48
FAMILIES           := temporal ganime animegan interpolation fewshot

demo: install  ## photos drawn with a look; then all five families: train, score, apply; ten minutes and one page
	$(BIN)/animegen stylize input=docs/images/photos output=$(RUNS)/demo/drawn overwrite=true
	@echo "Look at $(RUNS)/demo/drawn: photos drawn with the look cel. The tour of all families takes ten minutes."
	$(MAKE) --no-print-directory -j2 $(FAMILIES:%=demo-%)
	$(BIN)/animegen prepare toonworld=photo output=$(RUNS)/demo/film.mp4 overwrite=true
	$(BIN)/animegen stylize checkpoint=$(RUNS)/demo/temporal input=$(RUNS)/demo/film.mp4 output=$(RUNS)/demo/anime.mp4 overwrite=true
	$(BIN)/animegen interpolate checkpoint=$(RUNS)/demo/interpolation input=$(RUNS)/demo/anime.mp4 output=$(RUNS)/demo/smooth.mp4 factor=2 overwrite=true
	$(BIN)/animegen generate checkpoint=$(RUNS)/demo/ganime first=$(RUNS)/demo/ganime/samples/first/0.png last=$(RUNS)/demo/ganime/samples/last/0.png frames=9 output=$(RUNS)/demo/generated.gif overwrite=true
	$(BIN)/animegen compare $(FAMILIES:%=$(RUNS)/demo/%) output=$(RUNS)/demo/report overwrite=true
	@echo "Look at $(RUNS)/demo/report/report.html, at the films beside it, and at the curves with: make tensorboard"

demo-%:
	@mkdir -p $(RUNS)/demo
	@echo "training $*: $(RUNS)/demo/$*.log"
	@$(BIN)/animegen train $(DEMO_$*) threads=1 output=$(RUNS)/demo/$* overwrite=true > $(RUNS)/demo/$*.log 2>&1 \
		|| { tail -n 3 $(RUNS)/demo/$*.log; exit 1; }
	@echo "$*: done"

tensorboard: install  ## open the runs in TensorBoard (http://localhost:6006)
	$(BIN)/tensorboard --logdir $(RUNS) --samples_per_plugin images=100

bench: install  ## measure the generated world, the loop and a training step
	$(BIN)/animegen bench data=toonworld
	$(BIN)/animegen bench model=toy_terms size=tiny threads=1
	$(BIN)/animegen bench model=animegan/v2 size=small

clean:  ## remove the virtual environment and caches (runs stay)
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
