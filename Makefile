# `make demo` and `make test` set up all they need in .venv; both work in a fresh clone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= demo-output
DATA   := examples/data

.PHONY: demo docs test test-all test-portable lint types unit tables format clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	@echo "fusing the example, then assessing it against its truth: about a minute on a laptop"
	mkdir -p $(OUT)
	$(BIN)/hsfuse fuse --hsi $(DATA)/lrhsi.hdr --msi $(DATA)/sentinel2.tif --srf sentinel2 -o $(OUT)/fused.tif --overwrite
	$(BIN)/hsfuse assess $(OUT)/fused.tif --hsi $(DATA)/lrhsi.hdr --msi $(DATA)/sentinel2.tif --srf sentinel2 \
	  --reference $(DATA)/indian_pines_reference.tif --report $(OUT)/fused.html --overwrite -q
	@echo
	@echo "fused cube:  $(OUT)/fused.tif"
	@echo "HTML report: $(OUT)/fused.html (open it in a browser)"

test: lint types unit

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

# One thread a process: as many processes as cores (eight at most) share the tests, file by file, in the order of
# conftest.py.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

unit: $(VENV)/installed
	$(PYTEST)

# Also what takes minutes.
test-all: lint types
	$(PYTEST) -m ""

# The numeric rooms as other processors and builds would have them, and with invalid arithmetic as an error: before a
# release.
NUMERIC := tests/t1_physics tests/t2_metrics tests/t2_nets tests/t3_calibration tests/t4_methods
STRICT  := -W error::RuntimeWarning
test-portable: $(VENV)/installed
	ATEN_CPU_CAPABILITY=default NUMBA_CPU_NAME=generic $(PYTEST) $(STRICT) $(NUMERIC)
	ATEN_CPU_CAPABILITY=avx2 $(PYTEST) $(STRICT) $(NUMERIC)

tables: $(VENV)/installed
	for page in docs/accuracy.md docs/methods.md; do \
	  $(BIN)/hsfuse benchmark tables examples/results/*.csv --into $$page || exit 1; done

# The site, in site/; any warning, such as a dead link, is an error.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(OUT) build dist site .pytest_cache .mypy_cache .ruff_cache

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "setting up $(VENV) with pip: torch and others, 1 to 3 GB, some minutes the first time; nothing is said till then"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@
