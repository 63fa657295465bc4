# `make` lists the targets. They need only uv, or Python 3.11 to install it with.

UV := $(shell command -v uv || echo $(CURDIR)/.uv/bin/uv)
NEEDS_UV := $(filter $(CURDIR)/.uv/bin/uv,$(UV))
RUN := $(UV) run
LIBRARY := {{cookiecutter.project_slug}}/libs/faststream-otel
# In its own folder: the root's settings exclude everything that is baked.
IN_LIBRARY := cd '$(LIBRARY)' && $(UV) run --project '$(CURDIR)'
# Baked projects use the same uv.
export PATH := $(PATH):$(CURDIR)/.uv/bin
INTO := build
# Cookiecutter copies its whole template for the hook pre_prompt: this excludes .venv, bakes and the like.
TEMPLATE := check_answers.py cookiecutter.json hooks templates '{{cookiecutter.project_slug}}'
# What to bake: the broker (kafka, rabbitmq or nats), the trace backend (tempo, jaeger or zipkin), and the
# deployment (compose or kubernetes).
export BROKER ?= kafka
export TRACES ?= tempo
export DEPLOYMENT ?= compose

.DEFAULT_GOAL := help
.PHONY: help demo dev bake test e2e k8s-e2e bench scale drills dashboards recording docs lint lint-library format audit git

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: bake ## Bake the default project into build/ and watch it work, without Docker (BROKER=nats)
	@$(MAKE) --no-print-directory -C '$(INTO)/order-flow' demo

dev: bake ## Bake the default project into build/ and run it until Ctrl-C, without Docker (BROKER=nats)
	@$(MAKE) --no-print-directory -C '$(INTO)/order-flow' dev

bake: git $(NEEDS_UV) ## Bake the default project into build/, replacing it (INTO=folder, BROKER=nats, TRACES=jaeger, DEPLOYMENT=kubernetes)
	@rm -rf '$(INTO)/order-flow'
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	template=$$folder/faststream-otel && mkdir "$$template" && \
	for part in $(TEMPLATE); do ln -s "$(CURDIR)/$$part" "$$template/$$part" || exit; done && \
	$(RUN) --no-default-groups --group bake cookiecutter --no-input --output-dir '$(INTO)' "$$template" broker=$(BROKER) trace_backend=$(TRACES) deployment=$(DEPLOYMENT)

test: git $(NEEDS_UV) ## Test the library, bake every option and check each result (ARGS="-k name")
	$(RUN) pytest tests --ignore=tests/e2e --ignore=tests/k8s --numprocesses 5 --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

e2e: git $(NEEDS_UV) ## Bake the default, start it in Docker, follow an order through it (BROKER=nats, TRACES=jaeger, ARGS="-k name")
	@command -v docker >/dev/null || { echo 'docker is missing: install Docker with Compose 2.24 or newer' >&2; exit 1; }
	$(RUN) pytest tests/e2e $(ARGS)

k8s-e2e: git $(NEEDS_UV) ## Likewise in the Kubernetes cluster of the current context, where pods fail too (K8S_CONTEXT=name, K8S_KEDA=1)
	@for program in docker kubectl; do \
	    command -v $$program >/dev/null || { echo "$$program is missing: install it" >&2; exit 1; }; \
	done
	$(RUN) pytest tests/k8s $(ARGS)

bench: $(NEEDS_UV) ## Measure what telemetry costs (ARGS="--help")
	PYTHONPATH=tests $(RUN) python -m bench $(ARGS)

scale: $(NEEDS_UV) ## Measure what an order costs each component, in Docker, and what a rate needs (ARGS="--for 2500")
	PYTHONPATH=tests $(RUN) python -m bench.scale $(ARGS)

drills: $(NEEDS_UV) ## Show what faults lose, in Docker, id by id (BROKER=nats, ARGS="--list", ARGS="sigterm stop")
	@command -v docker >/dev/null || { echo 'docker is missing: install Docker with Compose 2.24 or newer' >&2; exit 1; }
	PYTHONPATH=tests $(RUN) python -m bench.drills $(ARGS)

dashboards: $(NEEDS_UV) ## Regenerate Grafana's dashboards from the code in dashboards/
	$(RUN) python -m dashboards

recording: git $(NEEDS_UV) ## Record `make demo` again, as docs/images/demo.svg
	$(RUN) python -m bench.recording

docs: $(NEEDS_UV) ## Build the site of docs/ into build/site (ARGS=serve shows it while you write)
	NO_MKDOCS_2_WARNING=1 $(RUN) --no-default-groups --group docs mkdocs $(or $(ARGS),build --strict)

lint: lint-library $(NEEDS_UV) ## Check the library, the template's own code and configuration
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) yamllint --strict .github .pre-commit-config.yaml
	$(RUN) shellcheck .ci/run .github/fetch-*.sh '{{cookiecutter.project_slug}}'/overlays/deployment/kubernetes/deploy/kubernetes/*.sh

lint-library: $(NEEDS_UV)
	$(IN_LIBRARY) ruff format --check .
	$(IN_LIBRARY) ruff check .
	$(IN_LIBRARY) mypy
	$(IN_LIBRARY) lint-imports --no-logo --no-cache

format: $(NEEDS_UV) ## Format the library and the template's own code, fix what can be fixed
	$(RUN) ruff format .
	$(RUN) ruff check --fix .
	$(IN_LIBRARY) ruff format .
	$(IN_LIBRARY) ruff check --fix .

audit: bake ## Check the dependencies, and the baked project's, for known vulnerabilities
	$(UV) audit
	@$(MAKE) --no-print-directory -C '$(INTO)/order-flow' audit

git:
	@command -v git >/dev/null || { echo 'git is missing: install it' >&2; exit 1; }

$(CURDIR)/.uv/bin/uv:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	    $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	done; \
	test -n "$$python" || { echo 'uv is missing, and so is Python 3.11 or newer (with venv) to fetch it: install one of them' >&2; exit 1; }; \
	echo 'Fetching uv into .uv/'; \
	$$python -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check uv
