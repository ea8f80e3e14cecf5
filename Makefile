# make test    sets up a virtual environment and runs every check
# make demo    installs what a user needs, renders a sample, fits, predicts, evaluates and shows the report
# make setup   only the environment
# make docs    the documentation site, in site/
# make fuzz    hostile inputs, SEED=0 COUNT=10000 (hours: COUNT=100000)
# make zoo     the tests that need PyTorch, timm and Keras, in an environment of their own
# make scale   the tests that need Ray and a server of S3, in an environment of their own
# make notebooks  the notebooks in examples/, executed where Headstart was installed by pip, outside the repository
# make exports the tests that need the converters of export formats, which are installed in .toolchains
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ZOO ?= .venv-zoo
SCALE ?= .venv-scale
NOTEBOOKS ?= .notebooks
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
SEED ?= 0
COUNT ?= 10000

.PHONY: setup test fast lint docs fuzz zoo scale notebooks exports demo clean

setup: $(VENV)/.ready

# What a user needs and nothing else, with pip's progress. Modules are compiled as they are first imported, not all here.
$(VENV)/.core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --no-compile --disable-pip-version-check -e .
	touch $@

$(VENV)/.ready: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,docs,openvino,tables]'
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

docs: setup
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

fast: lint
	$(BIN)/pytest -m "not slow"

test: lint
	$(BIN)/pytest -m "not slow"
	$(BIN)/pytest -m slow

fuzz: setup
	$(BIN)/python tests/fuzz --seed $(SEED) --count $(COUNT)

# PyTorch for processors, several GB smaller than the build for GPUs, into the environment $(1).
define install_torch
$(1)/bin/pip install --quiet --disable-pip-version-check $(2) --index-url $(TORCH_INDEX) \
	|| echo "$(TORCH_INDEX) cannot be reached: PyTorch comes from pip's own index, maybe built for GPUs (some GB more)."
endef

$(ZOO)/.ready: pyproject.toml
	$(PYTHON) -m venv $(ZOO)
	$(call install_torch,$(ZOO),torch torchvision)
	$(ZOO)/bin/pip install --quiet --disable-pip-version-check -e '.[dev,torch,timm,keras]'
	touch $@

zoo: $(ZOO)/.ready
	$(ZOO)/bin/pytest -m zoo

# The extra boto3 says which of its versions fit: pip would try hundreds.
$(SCALE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SCALE)
	$(SCALE)/bin/pip install --quiet --disable-pip-version-check -e '.[dev,openvino,tables,ray,s3]' 'moto[server]>=5' \
		'aiobotocore[boto3]'
	touch $@

scale: $(SCALE)/.ready
	$(SCALE)/bin/pytest tests/scale

# Two environments, with PyTorch and without. The present state is installed each time, as a wheel, not as a link to src.
$(NOTEBOOKS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(NOTEBOOKS)/full
	$(PYTHON) -m venv $(NOTEBOOKS)/bare
	$(call install_torch,$(NOTEBOOKS)/full,torch)
	$(NOTEBOOKS)/full/bin/pip install --quiet --disable-pip-version-check '.[notebooks,torch,keras]'
	$(NOTEBOOKS)/bare/bin/pip install --quiet --disable-pip-version-check '.[notebooks]'
	touch $@

notebooks: setup $(NOTEBOOKS)/.ready
	for environment in full bare; do \
		$(NOTEBOOKS)/$$environment/bin/pip install --quiet --no-deps --force-reinstall . || exit 1; \
	done
	HEADSTART_NOTEBOOKS=$(NOTEBOOKS) $(BIN)/pytest -m notebooks
	@echo "The executed notebooks, with their pictures: $(NOTEBOOKS)/executed"

exports: setup
	HEADSTART_TOOLCHAINS=.toolchains $(BIN)/pytest -m exports

demo: $(VENV)/.core
	rm -rf demo
	$(BIN)/headstart sample horses-or-humans demo/horses-or-humans --train 300 --validation 100 --progress
	$(BIN)/headstart fit demo/horses-or-humans -o demo/model --progress
	$(BIN)/headstart predict demo/model demo/horses-or-humans/validation/*/*-0.jpg --top 2
	$(BIN)/headstart evaluate demo/model demo/horses-or-humans/validation
	@echo
	@echo "Images     demo/horses-or-humans"
	@echo "Model      demo/model (model.onnx runs in any ONNX runtime; README.md has its accuracy)"
	@echo "Yours      $(BIN)/headstart fit FOLDER"
	@echo "Report:"
	@$(BIN)/headstart open demo/model

clean:
	rm -rf $(VENV) $(ZOO) $(SCALE) $(NOTEBOOKS) .toolchains demo site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
