# Every verb sets up its own environment; nothing outside .venv is touched.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install test test-fast conformance install-adapters test-adapters audit lint demo clean

.venv/.installed: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --editable . --group test --group lint
	# PyPI has no CPU build of torchvision, which transformers' AutoVideoProcessor asks for: 0.16 is the last release
	# whose Python part (all that is used) imports without its CUDA library. Where torch has CUDA, the matching one.
	$(BIN)/python -c "import sys, torch; sys.exit(torch.version.cuda is not None)" \
		&& $(BIN)/pip install --quiet --no-deps torchvision==0.16.2 || $(BIN)/pip install --quiet torchvision
	touch $@

install: .venv/.installed

test: install
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# rooms whose tests neither train nor compile models, without the two slowest of them
FAST := tests/video tests/soccernet tests/events tests/features tests/samples tests/evaluation \
	tests/report/test_charts.py tests/report/test_page.py tests/cli/test_main.py tests/training/test_recipe_names.py \
	tests/test_architecture.py tests/test_files.py tests/test_security.py tests/test_language.py \
	--ignore tests/evaluation/test_tuning.py \
	--deselect tests/evaluation/test_soccernet_average_map.py::test_evaluate_loads_the_folder_without_the_package

test-fast: install
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(FAST)

# transformers' own tests on our models, in the installed version; downloaded to build/conformance
conformance: install
	$(BIN)/python tests/conformance/run.py

# LoRA of PEFT and quantised models. The libraries lie apart: where PEFT is installed, transformers looks for an adapter in
# every `from_pretrained`. Without their dependencies, which `.venv` has.
build/adapters/.installed: .venv/.installed
	rm -rf build/adapters
	$(BIN)/pip install --quiet --no-deps --constraint .ci/constraints.txt --target build/adapters \
		peft torchao optimum-quanto bitsandbytes
	touch $@

install-adapters: build/adapters/.installed

test-adapters: install-adapters
	PYTHONPATH=build/adapters $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m adapters \
		tests/models tests/training

audit: install
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --requirement .ci/constraints.txt --no-deps --disable-pip --progress-spinner off --timeout 15

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/mypy

demo: install
	$(BIN)/python -W ignore examples/demo/demo.py

clean:
	rm -rf .venv build dist
