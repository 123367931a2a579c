# On a fresh machine `make benchmark` and `make test` do all the set-up there is, in .venv/. `make help` lists the rest.
PYTHON ?= python3
EXPERIMENT ?= quick
DATA ?=
VERIFY ?=
CORES ?= all
BIN := .venv/bin
# 23_ablation only where the experiment lists what to compare; 20_compare last: it writes the report
NOTEBOOKS = $(if $(filter training_length readings,$(EXPERIMENT)),24_training_length,21_threshold_sweep) $(if $(shell grep -s '^ablation:' config/$(EXPERIMENT).yaml),23_ablation) 20_compare
# the lessons that git holds without their pictures, half a minute each; the book runs them
SHOWN := 04_training_step_by_step 05_detection
READY := .venv/.ready
# Through the environment a folder of any name stays whole. With Ctrl-C (130), or where nothing could begin (2), no report.
export DATA
GRID = trap : INT; $(BIN)/python -m clgan_lib.runs.grid "$(EXPERIMENT)" --data "$$DATA"
THEN_REPORT = status=$$?; case $$status in 2|130) exit $$status;; esac; $(MAKE) --no-print-directory report && exit $$status

.DEFAULT_GOAL := help
.PHONY: help benchmark reproduce cluster report model page docs book test test-full test-oldest verify mutants lab clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "EXPERIMENT=$(EXPERIMENT): a file of config/.  DATA=: a folder in the MVTec AD layout; empty for the embedded data."

benchmark: $(READY) ## train every run of EXPERIMENT that is missing, then make its tables, figures and report
	@$(GRID) --cores $(CORES); $(THEN_REPORT)

cluster: $(READY) ## the same as jobs of a Slurm cluster, see docs/cluster.md
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cluster]" -c constraints.txt
	@$(GRID) --profile profiles/slurm; $(THEN_REPORT)

reproduce: $(READY) ## train every run of EXPERIMENT again, the committed ones too, which lack their maps and weights
	@$(BIN)/python -m clgan_lib.runs.grid "$(EXPERIMENT)" --data "$$DATA" -n > /dev/null && rm -rf results/$(EXPERIMENT)/*/*/seed*
	@$(MAKE) --no-print-directory benchmark

report: $(READY) ## tables, figures and results/EXPERIMENT/report.html from the runs that are there
	@mkdir -p results/$(EXPERIMENT)/log
	@status=0; for notebook in $(NOTEBOOKS); do echo "making the report: notebooks/$$notebook.ipynb"; \
	  $(BIN)/python -m clgan_lib.runs.notebook notebooks/$$notebook.ipynb \
	    results/$(EXPERIMENT)/log/$$notebook.ipynb -p experiment $(EXPERIMENT) \
	    --kernel python3 --execution-timeout 3600 --no-progress-bar --log-level ERROR || status=1; \
	done; echo "results/$(EXPERIMENT)/report.html"; exit $$status

model: $(READY) ## train the model whose weights git holds, results/demo, again (two minutes)
	@rm -rf results/demo/*/*/seed*; $(GRID) --cores $(CORES)
model: EXPERIMENT = demo
model: DATA =

page: $(READY) ## results/demo/page.html: paint a defect in a browser, and the committed model looks for it (npm takes the runtime)
	@$(BIN)/clgan page results/demo/clgan_rc/metal_nut/seed0 results/demo/page.html

docs: $(READY) ## write the tables in README.md and docs/ from the runs
	@$(BIN)/python docs/generate.py

book: $(READY) ## build/book/: a website of notebooks, docs and an API reference, to read without a network
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[book]" -c constraints.txt
	@rm -rf docs/api build/notebooks && mkdir -p build/notebooks
	@for notebook in $(SHOWN); do echo "running notebooks/$$notebook.ipynb"; \
	  $(BIN)/python -m clgan_lib.runs.notebook notebooks/$$notebook.ipynb build/notebooks/$$notebook.ipynb \
	    --kernel python3 --execution-timeout 600 --no-progress-bar --log-level ERROR || exit 1; \
	done
	@$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees -c docs . build/book && echo build/book/index.html

test: $(READY) ## style, types, and every test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/pytest -n 2 --dist loadfile

test-full: $(READY) ## `make test`, and hundreds of kills, full disks and memory limits
	@$(MAKE) --no-print-directory test && $(BIN)/pytest -m full
	@HYPOTHESIS_PROFILE=full $(BIN)/pytest -q tests/test_properties.py tests/test_fuzzing.py

test-oldest: ## the tests on the oldest versions that pyproject.toml allows, in .venv-oldest/
	@test -x .venv-oldest/bin/uv || { $(PYTHON) -m venv .venv-oldest && .venv-oldest/bin/python -m pip install --quiet uv; }
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct -e ".[grid,test]"
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile

verify: $(READY) ## make every table in results/ again from its runs' metrics.json, and compare
	@$(BIN)/python -m clgan_lib verify $(VERIFY)

.PHONY: ledger
ledger: $(READY) ## judge every claim of the paper by the committed runs: results/ledger/ledger.csv
	@$(BIN)/python -c 'from clgan_lib.exhibits import ledger; ledger.write()'

.PHONY: index
index: $(READY) ## results/index.html: all experiments in one page, their models to compare and links to their reports
	@$(BIN)/python -c 'from clgan_lib.exhibits import index; print(index.write())'

mutants: $(READY) ## change losses, detection and metrics line by line: do the tests notice?
	@$(BIN)/python benchmarks/mutants.py

lab: $(READY) ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab notebooks

clean: ## remove caches and the results that git does not track; .venv/ stays
	rm -rf build docs/api .cache .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info results/quick results/smoke results/scratch results/start_here results/own

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[grid,test]" -c constraints.txt
	@touch $(READY)
