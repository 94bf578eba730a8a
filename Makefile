# Two commands are enough: `make audit` runs the default study, `make test` the tests. Both set everything up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONDONTWRITEBYTECODE # without bytecode each of a study's processes would compile the library anew

.PHONY: audit test docs figures pictures test-slurm setup lint benchmark restore repro dvc-params verify rulegraph clean

audit: setup ## the default study, and where its report is
	snakemake --cores all
	@echo "The report: $(CURDIR)/results/report.html"

test: setup ## every test, the tiny study end to end included
	pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slurm: setup ## the tiny study through a real Slurm on this machine (Debian, root); not part of `make test`
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cluster]'
	python tests/slurm/run.py

setup: $(VENV)/.ready ## the virtual environment, from pyproject.toml under constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # on all cores, where pip takes one; some files are for other Pythons
	touch $@

lint: setup ## formatting, lint, types and the order of the rooms
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	mypy
	lint-imports --no-cache
	pytest -q tests/workflow/test_rules.py -k "not planned" # snakemake --lint among others; planning every study is left to the tests

benchmark: setup ## a cold run of the default study in a fresh folder: wall time, peak memory, time by rule
	python benchmarks/default_study.py

repro: setup ## what DVC would rerun after an edit of params.yaml
	palimpsest dvc-params --check
	dvc repro --no-run-cache

dvc-params: setup ## write the lists of params in dvc.yaml anew, after keys were added to params.yaml or removed
	palimpsest dvc-params

restore: setup ## bring outputs back from the DVC remote and tell Snakemake that they are up to date
	@dvc remote default >/dev/null 2>&1 || { echo "Error: no DVC remote to restore from: 'dvc remote add --default NAME FOLDER-OR-URL' first." >&2; exit 1; }
	dvc pull
	@dvc status --quiet || { echo "Error: the outputs do not belong to this params.yaml and code: see 'dvc status', then undo the edit or run 'make repro'." >&2; exit 1; }
	palimpsest verify
	snakemake --cores all --forceall --touch --quiet progress rules

verify: setup ## does every artefact match its hashes and today's params.yaml?
	palimpsest verify

docs: setup ## the documents as a site in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

figures: setup ## the figures of the documents and the list of counterexamples, from docs/evidence
	python docs/tools/figures.py
	python docs/tools/counterexamples.py

pictures: setup ## of results/report.html, light and dark, into docs/figures (needs Chromium)
	python docs/tools/pictures.py

rulegraph: setup ## docs/figures/rulegraph.svg (needs graphviz)
	snakemake --rulegraph dot 2>/dev/null | dot -Tsvg > docs/figures/rulegraph.svg

clean: ## remove the results of the default study
	rm -rf results .snakemake
