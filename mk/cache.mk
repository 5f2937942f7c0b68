# The cache of stages: what is in it; and what a remote one in a bucket is talked to with

# Made by the first stage that asks a bucket.
S3_VENV ?= .s3
S3      := $(S3_VENV)/ready
S3_FROM := requirements/s3.txt
KNOBS += S3_VENV
export S3_VENV
$(S3): $$(call outdated,$(S3),$(S3_FROM),$(S3_VENV)/bin/python)
	@$(if $(JSON),>&2) $(PYTHON) scripts/setup_venv.py '$(S3_VENV)' $(S3_FROM) && cat $(S3_FROM) > '$@'

.PHONY: cache
cache: $(if $(filter s3://%,$(CACHE_REMOTE)),$(S3))
	@$(HOST_PYTHON) scripts/show_cache.py --build '$(BUILD)' $(if $(JSON),--json)
