# Set-up: two environments, each made once from its lock

HELPERS        := $(VENV)/ready
HELPERS_FROM   := requirements/helpers.txt scripts/setup_venv.py
DEV            := $(VENV)/ready-dev
DEV_FROM       := requirements/dev.txt
TOOLCHAIN_HERE := $(TOOLCHAIN)/$(TPU_MLIR_VERSION)
TOOLS          := $(TOOLCHAIN_HERE)/ready
TOOLS_FROM     := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/setup_toolchain.py scripts/assemble_python.py \
	scripts/tpumake/openmp.py $(wildcard scripts/toolchain_stand_ins/*.py)
# An environment holds a copy of what it was made from. It is made anew when that has changed, by
# content and not by time, so that one in a container's image serves every checkout; or when the
# Python that it was made with is gone.
outdated = $(call differs,$1,$(foreach each,$2,$(file <$(each)))) $(if $(realpath $3),,FORCE)

$(HELPERS): $(call outdated,$(HELPERS),$(HELPERS_FROM),$(VENV)/bin/python)
	@$(if $(JSON),>&2) $(PYTHON) scripts/setup_venv.py '$(VENV)' $(firstword $(HELPERS_FROM)) && cat $(HELPERS_FROM) > '$@'

# Looked at when it is asked for: builds have no need of it.
$(DEV): $$(call outdated,$(DEV),$(DEV_FROM),$(VENV)/bin/python) $(HELPERS)
	@$(PYTHON) scripts/setup_venv.py --add '$(VENV)' $(DEV_FROM) && cat $(DEV_FROM) > '$@'

$(TOOLS): $(call outdated,$(TOOLS),$(TOOLS_FROM),$(TOOLCHAIN_HERE)/bin/python3) | $(HELPERS)
	@'$(VENV)/bin/python' scripts/setup_toolchain.py --version $(TPU_MLIR_VERSION) '$(@D)' && cat $(TOOLS_FROM) > '$@'

# Extras: packages for the toolchain's Python that only some networks need.
KNOWN_EXTRAS := $(patsubst requirements/extra-%.txt,%,$(wildcard requirements/extra-*.txt))
extra_ready = $(EXTRAS)/$1/ready
extra_from  = requirements/extra-$1.txt scripts/setup_extra.py scripts/tpumake/elf_stand_in.py scripts/tpumake/openmp.py
$(EXTRAS)/%/ready: $$(call outdated,$$(call extra_ready,$$*),$$(call extra_from,$$*),$(EXTRAS)/$$*/bin/python3) | $(HELPERS) $(TOOLS)
	@'$(VENV)/bin/python' scripts/setup_extra.py '$*' '$(@D)' --python '$(TOOLCHAIN_HERE)/bin/python3' && \
	  cat $(call extra_from,$*) > '$@'
ifneq ($(filter-out $(KNOWN_EXTRAS),$(EXTRA)),)
$(error EXTRA=$(EXTRA): there is no $(filter-out $(KNOWN_EXTRAS),$(EXTRA)); there are: $(KNOWN_EXTRAS))
endif

.PHONY: setup
setup: $(HELPERS) $(TOOLS) $(foreach each,$(EXTRA),$(call extra_ready,$(each)))

# What Make is measured against, for `make bench` and nothing else.
BENCH_VENV ?= .bench
BENCH      := $(BENCH_VENV)/ready
BENCH_FROM := requirements/bench.txt
$(BENCH): $(call outdated,$(BENCH),$(BENCH_FROM),$(BENCH_VENV)/bin/python)
	@$(PYTHON) scripts/setup_venv.py '$(BENCH_VENV)' $(BENCH_FROM) && cat $(BENCH_FROM) > '$@'
