# Type `make` for the verbs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Simulated unless HOST=pi@ADDRESS names a real board; NAME is what it shall be called, ARGS go to ansible-playbook.
HOST ?=
NAME ?=
ARGS ?=
BOARD ?= music
CACHE := $(or $(MUSIC_CACHE),$(HOME)/.cache/music-streaming)
UV_VERSION := 0.13.9
# Beside group_vars, so that the settings there hold for it.
INVENTORY := inventory/board-$(BOARD).yml
CLIENTS := .cache/clients/bin/listenbrainz-mpd
PACKAGES := chromium dbus-daemon default-jre-headless fonts-ipafont-gothic fonts-noto-core fonts-noto-color-emoji libatomic1 libfaketime nmap postgresql rsync shellcheck tinyproxy-bin
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MUSIC_CACHE := $(CACHE)
# Where a network has a certificate authority of its own, this computer trusts it there.
export UV_SYSTEM_CERTS := $(if $(wildcard /etc/ssl/certs/ca-certificates.crt),true,false)
# Ansible wants UTF-8, whatever this computer speaks.
export LC_ALL := C.UTF-8

.PHONY: help setup up try images update check down ssh test test-all test-app test-slow test-board test-long test-faults test-fresh lint docs lock bench bench-year clean

help: ## show these verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

setup: .venv/control ## install the pinned tools that site.yml needs into .venv

up: setup ## set up a board (simulated, or HOST=pi@192.0.2.10) and print where its dashboards are
	@if [ -z "$(HOST)" ]; then molecule/board up $(BOARD); fi
	@$(run) site.yml playbooks/tell.yml -- $(ARGS)

try: .venv/try ## the same flow on this machine without a board or Superset, until Ctrl-C (about 2 minutes)
	@PYTHONPATH=app python -m music_streaming.testing.trial $(if $(SECONDS),--seconds $(SECONDS))

images: setup ## write one archive from which the next board is set up without a network, from a board that is set up
	@$(run) playbooks/images.yml -- $(ARGS)

update: setup ## bring a board to this version, with a backup and a way back (REBUILD=1: all images from today's Debian)
	@$(run) playbooks/update.yml -- $(if $(REBUILD),-e update_rebuild=true) $(ARGS)

check: setup ## follow one record through the whole flow of the board
	@$(run) playbooks/check.yml -- $(ARGS)

ssh: ## run CMD='...' on the simulated board, or open a shell there
	@molecule/board ssh $(BOARD) $(CMD)

down: ## remove the simulated board
	molecule/board down $(BOARD)
	rm -f $(INVENTORY)

# The figures and the names of failed tests come last, also when a part has failed.
test: setup-test ## do all set-up and every test, then print the figures
	@rm -f .cache/junit/*.xml .cache/figures.jsonl
	@ended=0; $(MAKE) --no-print-directory lint test-app test-slow test-board || ended=1; \
	  python bench/figures.py || ended=1; exit $$ended

test-app: setup-test ## the quick tests: event, query, transaction, producer (about 5 minutes)
	pytest -n auto --dist loadfile --junitxml .cache/junit/app.xml -m "not slow"

# Those in which a broker or a driver dies and comes back, or much is fetched.
test-slow: setup-test
	pytest -n auto --dist loadfile --junitxml .cache/junit/slow.xml -m "slow and not clients"

test-board: setup-test ## the stories on a simulated board
	rm -f .cache/figures.jsonl .cache/junit/board-*.xml .cache/ansible.log
	@mkdir -p .cache/inventory
	molecule reset --no-report >/dev/null
	molecule/board down test
	molecule/board inventory test >.cache/inventory/test.yml
	ANSIBLE_LOG_PATH=$(CURDIR)/.cache/ansible.log MUSIC_INVENTORY=$(CURDIR)/.cache/inventory/test.yml \
	  molecule test --all --destroy $(or $(DESTROY),always)

test-long: setup-test $(CLIENTS) ## the stories that make boards of their own, and other people's players
	pytest -n0 -m clients app/tests/scrobble/test_clients.py
	pytest -p no:cacheprovider -o timeout=1800 molecule/tests/test_{used,cloud_init,proxy,doctor,restored,moved,updated,updated_postgres,offline}.py

test-faults: setup-test ## faults under load on a board of their own, in the order of SEED, the short ones ROUNDS times
	@mkdir -p .cache
	$(if $(RESUME),,@rm -f .cache/faults-$(or $(SEED),1).jsonl)
	@$(MAKE) --no-print-directory up BOARD=faults
	PYTHONPATH=app python molecule/tests/faults.py --board faults --rounds $(or $(ROUNDS),1) --seed $(or $(SEED),1) \
	  $(if $(HOURS),--hours $(HOURS)) --record .cache/faults-$(or $(SEED),1).jsonl --table .cache/faults-$(or $(SEED),1).md
	@$(MAKE) --no-print-directory down BOARD=faults

test-fresh: ## the README's two commands from a clean clone, with an empty home folder
	molecule/fresh

test-all: test test-long test-fresh test-faults ## what is long as well: three hours on two cores

lint: setup-test ## style and types
	yamllint --strict .
	ansible-lint -q --config-file .config/ansible-lint.yml
	ruff check app bench molecule playbooks
	ruff format --check app bench molecule playbooks
	mypy
	shellcheck molecule/board molecule/fresh roles/*/files/usr/local/libexec/music/{run-image,wait-ready,watch-containers,kafka-room} roles/_move/files/{copy,look,start,stop} roles/_remove/files/*

docs: setup-test ## write the generated parts of the docs
	PYTHONPATH=app:playbooks python app/tests/docs.py

lock: setup ## renew the locks after a change of requirements.txt or pyproject.toml
	.venv/bin/pip install --quiet uv==$(UV_VERSION)
	$(compile) requirements.txt -o requirements.lock
	$(compile) requirements.txt pyproject.toml --extra spark --extra test -o requirements-test.lock
	$(compile) pyproject.toml -o app/requirements.lock

bench: setup-test ## the product beside its peers; ARGS="--plays 1000000 --runs 3 --only ours --crash"
	PYTHONPATH=app:bench python -m compare $(ARGS)

bench-year: setup-test ## fill three years with PLAYS (50 million), print sizes, speeds, exactness
	PYTHONPATH=app python bench/year.py $(if $(PLAYS),--plays $(PLAYS))

clean: ## remove what make made here (the cache folder of images stays)
	rm -rf .venv .cache

# Playbooks on the board, with sudo's password asked for once.
ifeq ($(HOST),)
run = molecule/board inventory $(BOARD) >$(INVENTORY) && python playbooks/run.py --inventory $(INVENTORY)
else
run = python playbooks/run.py --board '$(HOST)' $(if $(NAME),--name '$(NAME)')
endif

compile := .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --python-version 3.11 \
  --custom-compile-command "make lock"

as_root := $(if $(filter-out 0,$(shell id -u)),sudo)
apt_update := $(as_root) apt-get update -qq
apt_install := $(as_root) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

.PHONY: setup-test
setup-test: .venv/test

# Players that nobody here wrote; as services of this machine they are not to run.
$(CLIENTS): Makefile
	@dpkg --status flac mpd mpdscribble >/dev/null 2>&1 || { $(apt_update) && \
	  { $(as_root) systemctl mask mpd.service mpd.socket mpdscribble.service || true; } >/dev/null 2>&1 && \
	  $(apt_install) flac mpd mpdscribble >/dev/null; }
	@command -v cargo >/dev/null || { $(apt_update) && { $(apt_install) cargo-web || $(apt_install) cargo; } >/dev/null; }
	cargo install --quiet --locked --no-default-features --root .cache/clients listenbrainz-mpd@2.6.0
	@touch $@

.venv/control: requirements.lock
	$(call python_at_hand)
	$(call install,requirements.lock)
	@touch $@

.venv/test: requirements-test.lock Makefile
	$(call python_at_hand)
	$(call install,requirements-test.lock)
	@dpkg --status $(PACKAGES) >/dev/null 2>&1 || { $(apt_update) && $(apt_install) $(PACKAGES) >/dev/null; }
	@$(apt_install) postgresql-$$(ls /usr/lib/postgresql | sort -V | tail -n 1)-hll >/dev/null
	@touch $@ .venv/control

# The program itself says what is missing where nobody can install it.
.venv/try: requirements-test.lock
	$(call python_at_hand)
	$(call install,requirements-test.lock)
	@if { [ "$$(id -u)" = 0 ] || sudo -n true; } 2>/dev/null && command -v apt-get >/dev/null && \
	    ! { command -v java && ls /usr/share/postgresql/*/extension/hll.control; } >/dev/null 2>&1; then \
	  $(apt_update) && $(apt_install) default-jre-headless postgresql >/dev/null; \
	  $(apt_install) postgresql-$$(ls /usr/lib/postgresql | sort -V | tail -n 1)-hll >/dev/null; fi
	@touch $@

# A bare Debian has neither Python with venv nor an SSH client.
define python_at_hand
	@ready() { command -v ssh >/dev/null && python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	ready || { echo "found no Python 3.11 with venv or no SSH client, installing them"; \
	  $(apt_update) && $(apt_install) python3-venv openssh-client >/dev/null; }; \
	ready || { echo "found $$(python3 --version 2>&1), wanted Python 3.11 or newer with venv, and ssh: use Debian 12, Ubuntu 24.04" \
	  "or newer, or install them and run again"; exit 1; }
endef

define install
	@[ -x .venv/bin/pip ] || python3 -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --requirement $(1)
endef
