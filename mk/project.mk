# The project itself

.PHONY: test test-fast test-full lint lock clean clean-extras distclean
# A file at a time, so that what its tests share is made once.
PYTEST = '$(VENV)/bin/python' -m pytest --numprocesses auto --dist loadfile

test-fast: $(DEV)
	@$(PYTEST) -m 'not slow and not toolchain and not full'

# A real browser to look at reports with, for test-full alone: 400 MB.
BROWSER_VENV ?= .browser
BROWSER      := $(BROWSER_VENV)/ready
BROWSER_FROM := requirements/browser.txt tests/setup_browser.py
KNOBS += BROWSER_VENV
$(BROWSER): $(call outdated,$(BROWSER),$(BROWSER_FROM),$(BROWSER_VENV)/bin/python)
	@$(PYTHON) scripts/setup_venv.py '$(BROWSER_VENV)' $(firstword $(BROWSER_FROM)) && \
	  $(PYTHON) tests/setup_browser.py '$(BROWSER_VENV)' && cat $(BROWSER_FROM) > '$@'

# A server with S3's manners, for test-full alone, too: 90 MB.
S3_SERVER_VENV ?= .s3-server
S3_SERVER      := $(S3_SERVER_VENV)/ready
S3_SERVER_FROM := requirements/s3-server.txt
KNOBS += S3_SERVER_VENV
$(S3_SERVER): $$(call outdated,$(S3_SERVER),$(S3_SERVER_FROM),$(S3_SERVER_VENV)/bin/python)
	@$(PYTHON) scripts/setup_venv.py '$(S3_SERVER_VENV)' $(S3_SERVER_FROM) && cat $(S3_SERVER_FROM) > '$@'

ALL_EXTRAS = $(foreach each,$(KNOWN_EXTRAS),$(call extra_ready,$(each)))
test: $(DEV) $(TOOLS) $(ALL_EXTRAS) $(REPORT) $(S3)
	@$(PYTEST) -m 'not full'

test-full: $(DEV) $(TOOLS) $(ALL_EXTRAS) $(REPORT) $(BROWSER) $(S3) $(S3_SERVER)
	@$(PYTEST)

lint: $(DEV)
	@'$(VENV)/bin/python' -m ruff check .
	@'$(VENV)/bin/python' -m ruff format --check .
	@'$(VENV)/bin/shellcheck' scripts/toolchain_bin/* scripts/tpumake/deployment/*.sh .ci/run
	@sh tests/lint_makefile.sh

# bench: TARGET is what is measured with; ROWS which rows, for instance guides,cold,variant, or all; ROUNDS how often all
# runs; PICTURES numbers of pictures for the row `calibration`, BENCH_MODELS models for `parallel`. ACCEPT: 1 puts the
# ratios that were measured in place of those in docs/bench.json, instead of comparing them. Variables of the target's
# stanza that are given hold there, too.
ACCEPT ?= 0
KNOBS += BENCH_VENV ACCEPT
bench_target = $(or $(call given,TARGET),tiny_int8)
bench_rows   = $(subst $(comma), ,$(or $(call given,ROWS),nothing touched))
bench_given  = $(foreach each,$(filter $(call model_of,$(bench_target))_%,$(.VARIABLES)),$(if $(call given,$(each)),$(each)))
.PHONY: bench
bench: $(HELPERS) $(TOOLS) $$(if $$(filter nothing touched all,$$(bench_rows)),$(BENCH))
	@'$(VENV)/bin/python' scripts/bench.py $(call shell_word,$(bench_target)) --rows $(call shell_word,$(call given,ROWS)) \
	  $(foreach each,ROUNDS PICTURES,$(if $(call given,$(each)),--$(call lower,$(each)) $(call shell_word,$(call given,$(each))))) \
	  $(if $(call given,BENCH_MODELS),--models $(call shell_word,$(call given,BENCH_MODELS))) \
	  $(foreach each,$(bench_given),--set $(call shell_word,$(each)=$($(each)))) \
	  --out '$(BUILD)/bench' --make '$(MAKE_COMMAND)' --venv '$(VENV)' --toolchain '$(TOOLCHAIN)' \
	  --rivals '$(BENCH_VENV)' --accepted docs/bench.json $(if $(filter 1,$(ACCEPT)),--accept)

# Every lock from its .in file. --upgrade is yours to add: make lock UPGRADE=--upgrade
COMPILE = cd requirements && '$(abspath $(VENV))/bin/uv' pip compile --quiet --no-config --generate-hashes \
	--no-emit-index-url --only-binary :all: --custom-compile-command 'make lock' $(UPGRADE)
UPGRADE ?=
lock: $(HELPERS)
	$(COMPILE) --universal --python-version 3.10 --override helpers.override helpers.in -o helpers.txt
	$(COMPILE) --universal --python-version 3.10 dev.in -o dev.txt
	$(COMPILE) --universal --python-version 3.10 --no-deps python310.in -o python310.txt
	$(foreach each,$(basename $(notdir $(wildcard requirements/tpu_mlir-*.in))),$(COMPILE) \
	  --python-version 3.10 --python-platform x86_64-manylinux_2_35 \
	  --override $(each).override $(each).in -o $(each).txt$(newline))
	$(foreach each,$(patsubst requirements/extra-%.in,%,$(wildcard requirements/extra-*.in)),\
	  $(COMPILE) --python-version 3.10 --python-platform x86_64-manylinux_2_35 \
	  --override extra-$(each).override extra-$(each).in -o extra-$(each).txt && cd .. &&) :
	$(COMPILE) --universal --python-version 3.10 --override bench.override bench.in -o bench.txt
	$(COMPILE) --universal --python-version 3.10 report.in -o report.txt
	$(COMPILE) --universal --python-version 3.10 browser.in -o browser.txt
	$(COMPILE) --universal --python-version 3.10 s3.in -o s3.txt
	$(COMPILE) --universal --python-version 3.10 s3-server.in -o s3-server.txt

clean:
	rm -rf '$(BUILD)'

clean-extras:
	rm -rf '$(EXTRAS)'

distclean: clean clean-extras
	rm -rf '$(VENV)' '$(TOOLCHAIN)' '$(BENCH_VENV)' '$(REPORT_VENV)' '$(BROWSER_VENV)' '$(S3_VENV)' '$(S3_SERVER_VENV)'
