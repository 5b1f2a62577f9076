# make test     set up, then ruff, mypy, import-linter and every test (without root: the unit tests)
# make demo     set up, then two containers on the weave network, found by name; takes down what it started
# make demo-hosts   the same on three hosts that share an etcd, each in a network namespace (as root)
# make lint     ruff, mypy and import-linter
# make bench    the measurements
# make faults   break things on a test host for SECONDS=600, and measure how soon they are mended (as root)
# make simulation   many hosts on one etcd, and all that can go wrong: 100 seeds of 1,000 hosts, for an hour or more
# make recordings   type the sessions of docs/sessions.toml at a terminal, and draw the README's pictures anew (as root)
# make setup    install what is missing: Debian packages (as root), and .venv
# make clean    remove what these made in this directory

BIN = .venv/bin

.PHONY: help setup lint test demo demo-hosts bench faults simulation recordings clean

help:
	@sed -n 's/^# make/make/p' Makefile

setup:
	@scripts/setup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	@scripts/setup tests
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

demo: setup
	@examples/demo.sh

demo-hosts: setup
	@scripts/setup tests
	$(BIN)/python examples/hosts.py

bench:
	@scripts/setup tests
	$(BIN)/python -m bench

faults:
	@scripts/setup tests
	$(BIN)/python bench/faults.py $(or $(SECONDS),600)

simulation: setup
	$(BIN)/python tests/cluster/simulator.py

recordings: setup
	$(BIN)/python scripts/record.py

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
