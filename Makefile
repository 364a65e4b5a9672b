# Names, no logic: each is one thing that a person would type.
# All of them make the virtual environment first, unless it is up to date.

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
installed := .venv/installed

site := .venv/installed-docs

.PHONY: demo repro test numerics check docs site screens proofs realsize faults bench golden up down

demo: $(installed)  ## draw the starter paintings, run the whole pipeline, print the table
	atelier data
	dvc repro
	atelier results

repro: $(installed)  ## bring every artifact up to date with data/, params/ and the code
	dvc repro

test: check  ## everything that must hold before a change goes in
	OMP_NUM_THREADS=1 pytest -m "not slow" -n auto
	$(MAKE) numerics

numerics: $(installed)  ## tests that compare floats once more, with the kernels of other processors
	OMP_NUM_THREADS=1 MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=AVX2 pytest -q -m numerical -n auto tests/atelier
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 pytest -q -m numerical -n auto tests/atelier

check: $(installed)  ## style, types and the arrows between packages
	ruff format --check
	ruff check
	mypy
	lint-imports

docs: $(installed)  ## the documents: links, generated pages, the tree in ARCHITECTURE.md
	pytest -q tests/docs

site: $(installed) $(site)  ## the documents as pages, into site/; no network; a warning is an error
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	pytest -q tests/docs/pages.py

screens: $(installed)  ## pictures of report, MLflow, Prefect and survey, after `make demo`; needs Chromium
	pytest -q tests/docs/screens.py

proofs: $(installed)  ## the slow tests: whole flows, real servers, long runs
	OMP_NUM_THREADS=1 pytest -m "slow and not faults and not realsize"

realsize: $(installed)  ## SDXL and FLUX at true width through all stages, on two free cores
	OMP_NUM_THREADS=2 pytest -m realsize -s -q -n 0 tests/realsize

faults: $(installed)  ## break everything on purpose; write what came of it into docs/reliability.md
	rm -rf artifacts/faults
	OMP_NUM_THREADS=1 pytest -m faults -n 4 --dist worksteal tests/faults
	python -m tests.faults.figures

bench: $(installed)  ## measure against peers and limits; writes docs/performance.md
	OMP_NUM_THREADS=1 python -m benchmarks

golden: $(installed)  ## write the golden curves again; read the difference before you commit
	ATELIER_GOLDEN=write pytest -q tests/atelier/training/test_golden.py

up: $(installed)  ## Prefect's and MLflow's servers and a worker, on this machine alone
	atelier up

down: $(installed)  ## stop what `atelier up` started
	atelier down

$(installed): pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(site): pyproject.toml constraints.txt
	.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
