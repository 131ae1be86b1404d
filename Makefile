# Names for commands; no logic lives here.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
BIN ?= .venv/bin
README ?= README.md
DOCS ?= .venv-docs
# what a test that passed has written is deleted at once: all of it is several GB
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n logical --dist worksteal -o tmp_path_retention_policy=failed

.PHONY: demo test test-all lint lab docs notebooks readme

demo: .venv/ready                   # the five stages on the embedded demo
	$(BIN)/fakeface demo

test: .venv/ready $(DOCS)/ready     # lint, the site and its links, clean, in sync, every component notebook, tests/
	$(MAKE) -j 2 --output-sync=target lint docs
	$(TEST) -m "not slow"

test-all: .venv/ready docs          # the same and whatever takes long
	$(TEST)

lint: .venv/ready                   # what can be said without running anything
	$(BIN)/ruff check nbs fakeface tests docs setup.py
	$(BIN)/ruff format --check nbs tests docs setup.py
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright  # or it asks PyPI for a newer one

lab: .venv/ready                    # JupyterLab, which opens nbs/index.ipynb; options through ARGS=
	JUPYTER_CONFIG_PATH="$(CURDIR)/.jupyter" $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/nbs/index.ipynb $(ARGS)

docs: $(DOCS)/ready                 # the documentation site in _site/; nothing is run, every link is followed
	$(DOCS)/bin/python -m docs.build

notebooks: .venv/ready              # export, run the component notebooks anew, clean
	$(BIN)/nbdev_export
	OMP_NUM_THREADS=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace nbs/[0-9]*/*.ipynb
	$(BIN)/nbdev_clean

readme:                             # README.md from nbs/index.ipynb; links are relative to nbs/ there
	$(BIN)/jupyter nbconvert --execute --to markdown --stdout --log-level=ERROR nbs/index.ipynb | sed -E 's#\]\(\.\./#](#g; s#\]\((images/|([A-Za-z0-9_]+/)?[A-Za-z0-9_]+\.ipynb)#](nbs/\1#g' > $(README)

.venv/ready: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,demo]'
	touch $@

# an environment of its own: notebooks and modules are read as text
$(DOCS)/ready: settings.ini constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install -c constraints.txt $(shell sed -n 's/^docs_requirements = //p' settings.ini | sed 's/[^ ]*/"&"/g')
	touch $@
