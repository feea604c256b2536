# Thin on purpose: what a target does stands in hack/, which runs alone as well.
PREFIX ?= /usr/local
BIN = $(shell hack/build.sh --dir)
# Where rustup puts cargo, which sudo and a fresh shell do not have in PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: build install test test-unit test-e2e test-images test-engines test-gates test-vm lint bench bench-images fuzz demo clean

build: ; hack/build.sh creel creel-image

install: build ; install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(BIN)/creel $(BIN)/creel-image

test: ; hack/test.sh unit e2e differential images engines gates

test-unit: ; hack/test.sh unit

test-images: ; hack/test.sh images

test-e2e: ; hack/test.sh e2e differential

test-engines: ; hack/test.sh engines

test-gates: ; hack/test.sh gates

# In virtual machines with systemd: an hour and a half under emulation; make test-vm VM='e2e user' for less
test-vm: ; hack/test-vm.sh $(VM)

lint: ; hack/lint.sh

# Options for the harness: make bench BENCH='--rounds 5 --peer crun-new=/opt/crun'
bench: ; hack/bench.sh $(BENCH)

# FUZZ_SECONDS for each target, a minute if not said: make fuzz FUZZ='tar unpack'
fuzz: ; hack/fuzz.sh $(FUZZ)

# Pulls and second runs beside skopeo + umoci + runc, podman and containerd: make bench-images BENCH=ROUNDS
bench-images: ; hack/bench-images.sh $(BENCH)

demo: ; hack/demo.sh

clean: ; cargo clean
