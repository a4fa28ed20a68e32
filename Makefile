# make demo    build a bundle, check it, run it: no data set, no GPU
# make test    lint, type-check, test, and the cameras' tests on the kernel's own driver
# make setup   .venv with the project, editable, and everything for development
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JETSON := $(wildcard /etc/nv_tegra_release)
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup demo test lint bench kernel-test soak gpu-test tables clean

setup: $(READY)

# On a Jetson TensorRT is an apt package of the system's Python: the environment must see it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(if $(JETSON),--system-site-packages) $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --constraint constraints.txt --editable '.[compile,dev,rtx,openvino,mcap,view]'
	@$(if $(JETSON),$(BIN)/python -c 'import tensorrt; print("TensorRT", tensorrt.__version__)' || { echo 'TensorRT does not import: sudo apt install python3-libnvinfer'; exit 5; },true)
	@touch $@

demo: $(READY)
	@$(BIN)/python tools/demo.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest
	@$(MAKE) --no-print-directory kernel-test

# Six virtual cameras of the kernel's in a guest that QEMU emulates; packages come only as root and with CI or
# FSMDE_APT=1 set, otherwise it says SKIPPED.
kernel-test: $(READY)
	@$(BIN)/python tools/kernel/run_tests.py

# 1,000 starts and stops and 20,000 sets there: does anything grow? Goes on where it was interrupted.
soak: $(READY)
	@$(BIN)/python tools/soak.py

bench: $(READY)
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only

# What could not run is reported NOT RUN; that nothing could run is no failure (pytest's exit code 5).
gpu-test: $(READY)
	@$(BIN)/python -m pytest tests/gpu -m 'cuda or tensorrt or orin' || test $$? -eq 5

# Tables in docs, rendered from recorded results; CI renders them again and wants no difference.
tables: $(READY)
	@$(BIN)/python tools/tables.py

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
