# Each target first prepares what it needs; where that is done already it costs no time.

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## install what is needed: Debian packages, .venv, kernels to test on
	tests/setup test

demo: ## show the tool at work on this machine
	tests/setup demo
	tests/demo

check: ## linters and unit tests, in a minute, on any Linux and without root
	tests/setup check
	tests/check

test: ## linters, unit tests, and the kernel tests in guests on Linux 6.1 and 6.12
	tests/setup test
	tests/run --quick 6.1 6.12

test-kernel: ## some kernel tests: K=6.12 (or none: this machine's own), T=FILE or TEST, W=WORDS
	tests/setup test $(K)
	tests/run --only $(or $(K),own) $(or $(T),tests/kernel) $(if $(W),-k '$(W)')

test-matrix: ## all of them on every kernel, or with SHARED=1 each on one; on arm64, s390x and cards, some
	tests/setup matrix
	tests/run $(if $(SHARED),--quick) 5.10 6.1 6.12 6.18 7 arm64 s390x cards; status=$$?; \
		$(if $(SHARED),,docs/platforms.py build/reports/*.xml;) exit $$status

platforms: ## fill the table of platforms in README: a few tests of each feature on every kernel
	tests/setup matrix
	tests/run --features own 5.10 6.1 6.12 6.18 7

test-versions: ## the tests with the oldest, Debian's and the newest of Python, libraries, libbpf, clang
	tests/versions; status=$$?; \
		docs/platforms.py build/reports/versions.json build/reports/versions/*-kernel.xml; \
		exit $$status

soak: ## the long tests (marked soak), with their full counts: K=6.12, K=own, or Linux 6.1 and 6.12
	tests/setup test $(filter-out own,$(K))
	tests/run --soak $(or $(K),6.1 6.12)

bench: ## measure against xdp-loader and others in a guest; the figures go to build/reports
	tests/setup test
	tests/vm run 6.12 --exact --timeout 7200 -- bench/run --only packets --unit instructions \
		--turns 3 --repeat 200
	tests/vm run 6.12 --timeout 7200 --share build/reports -- bench/run

install: ## for this system's Python: PREFIX=/usr/local DESTDIR= PYTHON=/usr/bin/python3
	tests/install

uninstall: ## remove what make install with the same PREFIX and DESTDIR installed
	tests/install --remove

deb: ## build the Debian package into dist/
	tests/deb build

test-deb: ## build and use the Debian package on bare images of Debian 12 and 13
	tests/deb try

pictures: ## draw docs/pictures anew, from real runs in namespaces of their own
	tests/setup demo
	make -s -C tests/bpf
	tests/alone .venv/bin/python -m tests.kernel.pictures docs/pictures

test-bare: ## do what README.md says on bare images of Debian 12 and 13
	tests/bare

plot: ## measure docs/cost.json anew, on this machine and in a guest, and draw docs/cost.svg
	tests/setup test
	bench/run floor --save machine
	tests/vm run 6.12 --exact --timeout 3600 --share docs -- bench/run floor --save guest \
		--unit instructions --turns 3 --repeat 200
	docs/plot.py

clean: ## remove what was built; .venv and the kernels stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find bench tests xdpctl -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help setup demo check test test-kernel test-matrix soak bench pictures plot install uninstall deb test-deb test-bare clean

coverage: ## how much of the package the unit tests and native kernel tests run, in one figure
	tests/setup test
	tests/coverage

release: ## check, build and tag a release; nothing is published
	tests/setup test
	tests/release

first-day: ## write docs/first-day.md anew, from what its commands print
	tests/setup demo
	tests/alone .venv/bin/python -m tests.kernel.first_day

.PHONY: coverage release first-day platforms test-versions
