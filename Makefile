# On a fresh machine with python3 (3.11 or newer, with venv) and make:
#   make demo   creates .venv, installs the package and inspects the embedded network
#   make test   creates .venv, installs the package and its test tools, checks and tests everything but what needs PyTorch
#   make test-torch     installs PyTorch for the CPU beside them and tests what needs it
#   make lint   the checks of `make test` without the tests
#   make bench  measures every claim of speed and memory (with PyTorch beside it where .venv has it), some 30 minutes;
#               `make bench-full` adds the layers that take many minutes each; validation/report/benchmarks.html shows both
#   make docs   builds the documentation into docs/_build/html, without a network; warnings are errors
#   make validate       repeats the experiments of the papers and checks their claims, two minutes; the figures are in
#                       validation/report/index.html
#   make validate-full  takes more of everything, kills 200 processes while they append to a store and 200 while
#                       they inspect models, reads 300 damaged copies of a file of each format, holds every bound
#                       against 3,000 random layers, and checks the trained models of the folder `shared` where there
#                       is one

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Files of tests in so many processes.
PARALLEL ?= -n 2 --dist loadfile

.PHONY: demo test test-torch lint bench bench-full docs validate validate-full
.DEFAULT_GOAL := demo

demo: $(VENV)/installed-demo
	@$(BIN)/spectral-conv demo

test: lint
	$(BIN)/python -m pytest $(PARALLEL)

test-torch: $(VENV)/installed-torch
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) tests/test_torch_*.py tests/test_models_torch.py tests/test_clip_model.py \
	  tests/test_examples.py
	$(BIN)/python -m pytest tests/test_docs.py -k 'README or training'

lint: $(VENV)/installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(VENV)/installed-test
	$(BIN)/python -m validation.benchmarks --page=validation/report/benchmarks.html

bench-full: $(VENV)/installed-test
	$(BIN)/python -m validation.benchmarks --full --page=validation/report/benchmarks.html

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

validate: $(VENV)/installed-test
	$(BIN)/spectral-conv validate

validate-full: $(VENV)/installed-test
	$(BIN)/spectral-conv validate --full
	$(BIN)/python -m validation.kills 200
	$(BIN)/python -m validation.kills inspections 200
	$(BIN)/python -m validation.fuzz 300
	EMPTY_ENVIRONMENT=1 $(BIN)/python -m pytest -q tests/test_distribution.py
	BOUND_EXAMPLES=3000 $(BIN)/python -m pytest -q tests/test_bounds.py -k random_operators
	@test ! -d ../shared || $(BIN)/python -m validation.models

# The stamps are newer than pyproject.toml once everything it asks for is installed.
$(VENV)/installed-demo: pyproject.toml | $(VENV)/created
	$(BIN)/python -m pip install --quiet --editable '.[models]'
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/created
	$(BIN)/python -m pip install --quiet --editable '.[models]' --group test
	@touch $@

$(VENV)/installed-docs: pyproject.toml | $(VENV)/created
	$(BIN)/python -m pip install --quiet --editable '.[models]' --group docs
	@touch $@

# On Linux, indexes that have both builds prefer the one for graphics cards; TORCH names another version or build.
TORCH ?= torch==2.13.0
$(VENV)/installed-torch: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	@touch $@

# pip before 25.1 does not know `--group`.
$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@
