# `make demo` and `make test` set themselves up: all that is needed is Python 3.10 or newer (PYTHON=… to choose one).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo test test-transformers5 lint format bench package clean

help:
	@echo "make demo     run the project on the demo corpus: fetch encoder, convert, train, evaluate, show"
	@echo "make test     run the tests"
	@echo "make test-transformers5   run the tests of the core under transformers 5"
	@echo "make lint     check style (ruff) and types (mypy)"
	@echo "make format   bring the code into style"
	@echo "make bench    measure speed beside other systems, and how time and memory grow (most of an hour on two cores)"
	@echo "make package  pack the demo's pipeline into a wheel"
	@echo "make clean    remove what demo and tests made, the virtual environment too"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[dev,onnx,plot,shared,tensorboard]"
	touch $@

demo: $(STAMP)
	$(BIN)/python -m spacy project run all

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The core without spacy-transformers, under the newest transformers, in an environment of its own
test-transformers5: $(VENV)-transformers5/.installed
	OMP_NUM_THREADS=1 $(VENV)-transformers5/bin/python -m pytest -n 2 --dist worksteal \
		tests/test_tags.py tests/test_encoding.py tests/test_models.py tests/test_optimizer.py tests/test_component.py

$(VENV)-transformers5/.installed: pyproject.toml
	test -x $(VENV)-transformers5/bin/python || $(PYTHON) -m venv $(VENV)-transformers5
	$(VENV)-transformers5/bin/python -m pip --quiet install -c constraints.txt torch
	$(VENV)-transformers5/bin/python -m pip --quiet install "transformers>=5" -e ".[dev]"
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

assets/encoder: | $(STAMP)
	$(BIN)/python scripts/fetch_encoder.py assets/encoder

bench: $(STAMP) assets/encoder
	$(BIN)/python bench/training_speed.py
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/scaling.py
	$(BIN)/python bench/startup.py

package: demo
	$(BIN)/python -m spacy project run package

clean:
	rm -rf $(VENV) $(VENV)-transformers5 corpus training metrics packages dist .pytest_cache .mypy_cache .ruff_cache .hypothesis project.lock
