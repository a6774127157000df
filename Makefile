# `make demo` and `make test` set themselves up: all that is needed is Python 3.10 or newer (PYTHON=… to choose one).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo test test-gpu gpu test-transformers5 test-lowest test-package test-ray fuzz soak audit lint format bench package clean

help:
	@echo "make demo     run the project on the demo corpus: fetch encoder, convert, init, train, calibrate, evaluate, show, report"
	@echo "make test     run the tests"
	@echo "make test-gpu   run the tests of the component on a stand-in for a GPU; needs g++, no GPU"
	@echo "make gpu      acceptance run on a real GPU: correctness, then speed (at most nine minutes)"
	@echo "make test-transformers5   run the tests of the core under transformers 5"
	@echo "make test-lowest   run the tests with the lowest versions of the dependencies that are allowed"
	@echo "make test-package   build wheel and sdist, install the wheel in an empty environment, run the sdist's tests there"
	@echo "make test-ray   run the tests of annotate with Ray and pyarrow, which the other tests go without"
	@echo "make fuzz     run the tests of hostile documents over 100,000 of them"
	@echo "make soak     annotate mixed documents for 30 minutes; memory and results must stay as they are"
	@echo "make audit    look the dependencies up in the database of known vulnerabilities"
	@echo "make lint     check style (ruff) and types (mypy)"
	@echo "make format   bring the code into style"
	@echo "make bench    measure speed beside other systems, and how time and memory grow (most of an hour on two cores)"
	@echo "make package  pack the demo's pipeline into a wheel"
	@echo "make clean    remove what demo and tests made, the virtual environment too"

# An environment with torch; the pip that comes with Python 3.10 cannot build seqeval
define environment
test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
$(1)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt "pip>=23.1" torch
endef

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(call environment,$(VENV))
	$(PIP) install -c constraints.txt -e ".[dev,lora,onnx,plot,pretrain,shared,tensorboard,tune]"
	touch $@

demo: $(STAMP)
	$(BIN)/python -m spacy project run all

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The component on a strict stand-in for a GPU (tests/gpu/standin): what mixes NumPy and CuPy, or CPU and GPU, fails there
test-gpu: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.gpu.plugin -n 2 --dist worksteal tests/gpu $(ON_GPU)

ON_GPU := $(patsubst %,tests/%.py,test_component test_rehearsal test_confidence test_span_groups model/test_bert_token_classifier \
	model/test_token_classifier model/test_passes model/test_optimizer model/test_lora behaviour/test_crf behaviour/test_shared)

# The core without spacy-transformers, under the newest transformers, in an environment of its own
test-transformers5: $(VENV)-transformers5/.installed
	OMP_NUM_THREADS=1 $(VENV)-transformers5/bin/python -m pytest -n 2 --dist worksteal \
		tests/test_tags.py tests/model/test_encoding.py tests/model/test_bert_token_classifier.py tests/model/test_optimizer.py tests/test_component.py \
		tests/model/test_checkpoint.py tests/model/test_lora.py tests/pretrain tests/test_rehearsal.py tests/export/test_huggingface.py

$(VENV)-transformers5/.installed: pyproject.toml
	$(call environment,$(VENV)-transformers5)
	$(VENV)-transformers5/bin/python -m pip --quiet install "transformers>=5" -e ".[dev,lora,pretrain,tensorboard]"
	touch $@

# The lowest versions that pyproject.toml allows; torch alone as constraints.txt has it, the CPU build, with an
# onnxscript that goes with it. Typer from 0.26 on brings no click, which spaCy of that time imports and does not ask for.
NOT_LOWEST ?= torch onnxscript

test-lowest: $(VENV)-lowest/.installed
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -n 2 --dist worksteal $(TESTS)

$(VENV)-lowest/.installed: pyproject.toml $(STAMP)
	$(call environment,$(VENV)-lowest)
	$(BIN)/python scripts/lowest_versions.py --except $(NOT_LOWEST) > $(VENV)-lowest/lowest.txt
	echo "typer<0.26" >> $(VENV)-lowest/lowest.txt
	echo "torch==$$($(VENV)-lowest/bin/python -c 'import torch; print(torch.__version__.split("+")[0])')" >> $(VENV)-lowest/lowest.txt
	$(VENV)-lowest/bin/python -m pip --quiet install -c $(VENV)-lowest/lowest.txt -e ".[dev,lora,onnx,parquet,plot,pretrain,ray,shared,tensorboard,tune]"
	touch $@

# The wheel in an environment without the sources, and the tests that the sdist carries
test-package: $(STAMP)
	rm -rf dist $(VENV)-package
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(call environment,$(VENV)-package)
	$(VENV)-package/bin/python -m pip --quiet install -c constraints.txt "$$(echo dist/*.whl)[dev,lora,onnx,plot,pretrain,tensorboard,tune]"
	mkdir $(VENV)-package/sdist && tar -xzf dist/*.tar.gz --strip-components 1 -C $(VENV)-package/sdist
	rm -r $(VENV)-package/sdist/spacy_bertner
	cd $(VENV)-package/sdist && OMP_NUM_THREADS=1 ../bin/python -m pytest -n 2 --dist worksteal $(TESTS)

# Ray and pyarrow are large, and few need them
test-ray: $(STAMP)
	$(PIP) install -c constraints.txt -e ".[parquet,ray]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/annotate -k "ray or parquet or json_does_not_have"

gpu: $(STAMP)
	$(BIN)/python bench/gpu.py --out bench/results/gpu

fuzz: $(STAMP)
	FUZZ_DOCS=$${FUZZ_DOCS:-120000} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -n 0 tests/behaviour/test_hostile.py

soak: $(STAMP) assets/encoder
	OMP_NUM_THREADS=1 $(BIN)/python bench/memory.py soak --minutes $${MINUTES:-30}

# --strict: a package that could not be looked up is a failure, not a pass
audit: $(STAMP)
	$(BIN)/python -m pip_audit --strict --disable-pip --no-deps -r constraints.txt

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
	rm -rf $(VENV) $(VENV)-transformers5 $(VENV)-lowest $(VENV)-package corpus training metrics packages report tune dist .pytest_cache .mypy_cache .ruff_cache .hypothesis project.lock
