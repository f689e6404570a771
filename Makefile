# Two commands: `make book` builds and prints where to open it, `make test` proves it.
# On Linux without a GPU, spare yourself the CUDA download:
#   make book TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
TORCH_INDEX ?=
BENCH ?=
DIR ?=
BIN := .venv/bin
TOOLS := book/tools
CONSTRAINTS := $(wildcard $(TOOLS)/constraints-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt)
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Two notebooks run side by side, so each keeps to one core.
export OMP_NUM_THREADS ?= 1

.PHONY: book colab assignments grade test test-unit test-notebooks test-book test-assignments lint types bench lab clean

book: .venv/.ready
	python $(TOOLS)/vendor.py
	python $(TOOLS)/execute.py
	python $(TOOLS)/contracts.py
	python $(TOOLS)/pages.py
	@# From nothing and with --all: an incremental build would keep pages that are gone, and pass over the
	@# warnings of those that it does not read again.
	rm -rf _build/html
	jupyter-book build . --all -W -n --keep-going -q
	@echo "The book is ready: open $(CURDIR)/_build/html/index.html"

# The chapters' copies for Colab in book/colab, which are committed; to be made again when a chapter changes.
colab: .venv/.ready
	python $(TOOLS)/execute.py
	python $(TOOLS)/colab.py

# The student copies of the assignments, and their solutions, into _build/assignments.
assignments: .venv/.ready
	python $(TOOLS)/assignments.py

# Grade DIR, which holds <student>/<assignment>.ipynb.
grade: .venv/.ready
	python $(TOOLS)/grading.py $(DIR)

test: book lint types test-unit test-notebooks test-book test-assignments

test-unit: .venv/.ready
	pytest --doctest-modules lossbook tests --ignore tests/book -n 2 -q

# Every cell of every chapter, as its copy for Colab and with what Colab brings (nbval).
test-notebooks: .venv/.ready
	python $(TOOLS)/as_on_colab.py

# Tests of the same page stay together, so that a page is opened once for all of them.
test-book: .venv/.ready
	pytest tests/book --ignore tests/book/test_assignments.py -n 2 --dist worksteal -q

# The graders use both cores themselves.
test-assignments: .venv/.ready
	pytest tests/book/test_assignments.py -q

lint: .venv/.ready
	ruff check .
	ruff format --check .

types: .venv/.ready
	mypy

bench: .venv/.ready
	unset OMP_NUM_THREADS; python tests/benchmarks/run.py $(BENCH)

lab: .venv/.ready
	jupyter lab chapters

clean:
	rm -rf _build book/atlas.md book/claims.md book/contracts book/explorer.md book/performance.md .venv dist

.venv/.ready: pyproject.toml $(TOOLS)/torch.txt $(TOOLS)/oracles.txt $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	@# torch first and pinned: left to the others it would arrive as the newest build, several GB of CUDA.
	pip install -q -r $(TOOLS)/torch.txt $(TORCH_INDEX)
	pip install -q $(addprefix -c ,$(CONSTRAINTS)) -e '.[test]'
	@# Without their dependencies, for one of them would replace torch.
	pip install -q --no-deps -r $(TOOLS)/oracles.txt
	touch $@
