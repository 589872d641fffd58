# For people; everything is done by tools/ and the CMake presets. `make help` lists the targets.
.PHONY: help setup build demo test bench eval-smoke lint check clean
.DEFAULT_GOAL := help

help:
	@echo 'make build   set up what is missing and build: build/release/loopserve'
	@echo 'make demo    build, get the default model, hold a three-turn dialogue over a long text'
	@echo 'make test    build and run all tests'
	@echo 'make bench   build and compare the speed with other engines, into build/bench.json'
	@echo 'make eval-smoke  build and run the benchmark on tiny settings, into build/eval-smoke'
	@echo 'make lint    formatting, layers, links of the documents, clang-tidy'
	@echo 'make check   the tests under the address and undefined-behaviour sanitizers'
	@echo 'make clean   remove build/'

setup:
	@tools/setup packages llama-cpp >/dev/null

build: setup
	cmake --preset release
	cmake --build --preset release

demo: build
	tools/demo build/release/loopserve

test:
	@tools/setup client-tests >/dev/null
	@$(MAKE) --no-print-directory build
	ctest --preset release

bench: build
	@tools/setup bench-peers
	tools/bench build/release/loopserve build/bench.json

eval-smoke: build
	tools/eval_smoke build/release/loopserve build/eval-smoke

lint: setup
	@tools/setup lint
	tools/lint

check: setup
	tools/check asan-ubsan

clean:
	rm -rf build
