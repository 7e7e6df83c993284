# Every target does its own set-up. `make help` lists them.
PYTHON ?= python3
STAGE ?=
EMAIL ?=
# Of `make deploy`: 1 answers beforehand what would be asked.
YES ?=
# Of `make destroy`: what becomes of data (keep, delete) and of the certificates of devices (keep, detach).
DATA ?= keep
DEVICES ?= keep
# Of `make destroy`: the stage's name once more. Of `make rotate-secret`: the secret, and options such as `--no-wait`, `--again`, `--json`.
NAME ?=
# NAME as it was typed. Some systems have a variable of that name, and it must not answer for anybody.
GIVEN_NAME = $(if $(findstring command line,$(origin NAME)),$(NAME))
# Of `make redrive`: the dead-letter queue.
QUEUE ?=
OPTIONS ?=
# Of `make restore`: the table that DynamoDB restored, and the e-mail of whom a dashboard gets that has no owner any more.
FROM ?=
OWNER ?=
# What `make bench` is to do: names of parts, and options. All parts when empty.
PARTS ?=
# Of `make soak`: how long, how many viewers, and how many of them are pages in a browser.
MINUTES ?= 15
VIEWERS ?= 60
PAGES ?= 6
# Processes that share the tests among them: one waits for the running stack most of its time, the others compute.
WORKERS ?= 3
# Recipes see it in their environment, so that a row's name needs no quoting.
export ROW ?=
# Bytecode is kept, whatever the environment says: without it each process compiles all that it imports.
export PYTHONDONTWRITEBYTECODE =
RUN = PATH="$$($(PYTHON) scripts/setup.py --print-path):$$PATH" PYTHONPATH=layers/tidegate/python:.

WEB = PATH="$$($(PYTHON) ../scripts/setup.py --print-path):$$PATH"

.DEFAULT_GOAL := help
.PHONY: help setup up smoke down integration unit test test-full test-web test-client test-browser soak pictures check bench synth deploy admin full-revalidation full-pass secrets rotate-secret cost requirements bootstrap preflight destroy rollback lint-templates sbom audit doctor drill redrive restore

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' Makefile

setup:  ## bring all tools into the checkout (every other target does this first)
	@$(PYTHON) scripts/setup.py

up: setup  ## start the whole stack on this machine
	@$(RUN) python -m local_stack up

smoke: setup  ## drive the running stack through its edge: make smoke, make smoke ROW="wildcard topic"
	@$(RUN) python -m local_stack smoke --row "$$ROW"

drill: setup  ## break a part of the running stack, look, put it right: make drill NAME=dead-relay; alone it lists them
	@$(RUN) python -m local_stack.drills --stage "$(STAGE)" --name "$(GIVEN_NAME)" $(OPTIONS)

down: setup  ## stop what `up` started, and remove what it wrote
	@$(RUN) python -m local_stack down

integration: setup  ## up, smoke, down
	@$(RUN) python -m local_stack integration

unit: setup  ## the fast tests: no process, no socket, under a minute
	@$(RUN) python -m pytest tests/unit tests/docs

test: setup  ## every test, the emulator included; the model in its small bound
	@$(RUN) python -m pytest -n $(WORKERS)

test-browser:  ## the tests in a real browser, against a stack of their own
	@$(PYTHON) scripts/setup.py --browser
	@$(RUN) python -m local_stack.browser_tests $(OPTIONS)

pictures:  ## make the pictures of the docs again, from the demo boards
	@$(PYTHON) scripts/setup.py --browser
	@TIDEGATE_PICTURES=1 $(RUN) python -m local_stack.browser_tests

soak:  ## many viewers of one dashboard for a while: make soak MINUTES=15 VIEWERS=60 PAGES=6
	@$(PYTHON) scripts/setup.py --browser
	@TIDEGATE_SOAK="$(MINUTES),$(VIEWERS),$(PAGES)" $(RUN) python -m local_stack.browser_tests $(OPTIONS)

test-full:  ## as test, the model in its full bound, and the tests marked `full`
	@$(PYTHON) scripts/setup.py --browser
	@$(RUN) python -m pytest -n $(WORKERS) --full

test-web: setup  ## the pages and the client: types, and the tests that need no stack
	@cd web && $(WEB) npx tsc -p . && $(WEB) npx vitest run

test-client: setup  ## the client against a stack of its own with faults; TIDEGATE_STATE=folder uses a running one
	@$(PYTHON) scripts/setup.py --browser
	@$(RUN) python scripts/test_client.py

check: setup  ## formatting, lint, types, layering, templates
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports --no-logo
	@$(RUN) python scripts/lint_templates.py

lint-templates: setup  ## cfn-lint on the templates of all stages, also when nothing changed
	@$(RUN) python scripts/lint_templates.py --again

sbom: setup  ## write what is deployed to sbom.cdx.json: packages, versions, licences (CycloneDX)
	@$(RUN) python scripts/sbom.py

audit:  ## ask for advisories of all dependencies; 1: there are some, 3: could not be checked
	@$(PYTHON) scripts/setup.py --audit
	@$(RUN) python scripts/audit.py $(OPTIONS)

bench: setup  ## measure what the product promises; results under benchmarks/results
	@$(RUN) python -m benchmarks $(PARTS)

synth: setup  ## synthesise a stage: make synth STAGE=staging
	@$(RUN) python -m ops.deploy synth --stage "$(STAGE)"

bootstrap: setup  ## prepare the account and region for the CDK, once: make bootstrap STAGE=staging
	@$(RUN) python -m ops.deploy bootstrap --stage "$(STAGE)"

preflight: setup  ## look at the account before a deployment: make preflight STAGE=staging OPTIONS=--json
	@$(RUN) python -m ops.preflight --stage "$(STAGE)" $(OPTIONS)

doctor: setup  ## hold a stage to what production needs; 1: mend something, 3: could not be checked: make doctor STAGE=staging
	@$(RUN) python -m ops.doctor --stage "$(STAGE)" $(OPTIONS)

deploy: setup  ## deploy to the account of the current credentials: make deploy STAGE=staging, for a pipeline YES=1
	@$(RUN) python -m ops.deploy deploy --stage "$(STAGE)" --yes "$(YES)"

destroy: setup  ## take a stage away, and keep its data: make destroy STAGE=staging, with DATA=delete all of it
	@$(RUN) python -m ops.destroy --stage "$(STAGE)" --name "$(GIVEN_NAME)" --data "$(DATA)" --devices "$(DEVICES)"

admin: setup  ## write the first admin: make admin STAGE=staging EMAIL=you@example.com
	@$(RUN) python -m ops.deploy admin --stage "$(STAGE)" --email "$(EMAIL)"

full-revalidation: setup  ## check every subscription again, now: make full-revalidation STAGE=staging
	@$(RUN) python -m ops.deploy full-revalidation --stage "$(STAGE)"

restore: setup  ## bring dashboards back from a restored table: make restore STAGE=staging FROM=table, then OPTIONS=--write
	@$(RUN) python -m ops.restore --stage "$(STAGE)" --from "$(FROM)" --owner "$(OWNER)" $(OPTIONS)

rollback: setup  ## bring back the release before, in seconds: make rollback STAGE=staging
	@$(RUN) python -m ops.rollback --stage "$(STAGE)" $(OPTIONS)

secrets: setup  ## show the values of each secret, their age and what is due: make secrets STAGE=staging
	@$(RUN) python -m ops.rotate_secret --stage "$(STAGE)" $(OPTIONS)

rotate-secret: setup  ## give a secret a new value, or go on with it: make rotate-secret STAGE=staging NAME=jwt-gateway
	@test -n "$(NAME)" || { echo "error: NAME is missing; make secrets STAGE=... lists the names" >&2; exit 1; }
	@$(RUN) python -m ops.rotate_secret --stage "$(STAGE)" --name "$(NAME)" $(OPTIONS)

redrive: setup  ## list the dead-letter queues, or send back what one holds: make redrive STAGE=staging QUEUE=revalidation
	@$(RUN) python -m ops.redrive --stage "$(STAGE)" --queue "$(QUEUE)" $(OPTIONS)

full-pass: full-revalidation  ## the former name of full-revalidation

cost: setup  ## price a load: make cost OPTIONS="--viewers 500 --protocol sse"; OPTIONS=--help lists all
	@$(RUN) python -m ops.cost $(OPTIONS)

requirements: setup  ## compile the hashed requirements again
	@$(RUN) sh scripts/compile_requirements.sh
