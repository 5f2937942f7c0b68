# Deploy: a model onto a device, over SSH, or HTTP

# DEVICE_HOST: where the device is, host, user@host or user@host:port, or http://host for its web interface; DEVICE_SSH: the ssh to use, with options.
DEVICE_HOST ?=
DEVICE_SSH ?= ssh
# DEVICE_RELOAD: 0 leaves the device's own service alone.
DEVICE_RELOAD ?= 1
# DRY_RUN: 1 has .deploy and .deploy-rollback only say what they would do.
DRY_RUN ?= 0
KNOBS += DEVICE_HOST DEVICE_SSH DEVICE_RELOAD DRY_RUN

onto_wrong = $(or \
	$(if $(call model_of,$1),,there is no $1 to $2; make list shows what there is), \
	$(if $(filter $1,$(MODELS)),which variant of $1? make $(firstword $(foreach each,$(call variants,$1),$1_$(each)) $1_int8).$2), \
	$(if $(call bound_for,$1),,$(call onto_nothing,$1)), \
	$(if $(strip $(DEVICE_HOST)),,to which device? make $1.$2 DEVICE_HOST=192.168.42.1))
bound_for    = $(foreach each,$(call model_of,$1),$(call bound,$(each)))
onto_nothing = $(if $(CHIPS_$(call device,$(call model_of,$1))),DEVICE=$(call device,$(call model_of,$1)) has no $(CHIP) for $1 to run on,DEVICE=none is no device to put $1 on: DEVICE=recamera)
onto_model   = $(BUILD)/$(call model_of,$1)/$(CHIP)/$1.$(MODEL)
onto_car     = $(call side_car,$(call model_of,$1),$(call variant_of,$1))
onto_needs   = possible-$1 $(call onto_model,$1) $(call onto_car,$1) $(call gated,$(call model_of,$1),$(call variant_of,$1))
onto_flags   = --device '$(call device,$(call model_of,$1))' --host $(call shell_word,$(DEVICE_HOST)) --ssh $(call shell_word,$(DEVICE_SSH))
onto_refuse  = @echo >&2 $(call shell_word,tpumake: $(call onto_wrong,$1,$2)); exit 2
deploying    = @'$(VENV)/bin/python' scripts/deploy_model.py '$(call onto_model,$*)' --side-car '$(call onto_car,$*)' $(call onto_flags,$*) \
	--kept '$(BUILD)/.device' $(if $(filter 0,$(DEVICE_RELOAD)),--no-reload) $(if $(filter 1,$(DRY_RUN)),--dry-run)

# X.deploy, X.deploy-rollback, X being one variant of a model. What is missing is built; to go back takes no model.
%.deploy: $$(if $$(or $$(call onto_wrong,$$*,deploy),$$(filter 1,$$(DRY_RUN))),,$$(call onto_needs,$$*)) FORCE | $(HELPERS)
	$(if $(call onto_wrong,$*,deploy),$(call onto_refuse,$*,deploy),$(deploying))
%.deploy-rollback: FORCE | $(HELPERS)
	$(if $(call onto_wrong,$*,deploy-rollback),$(call onto_refuse,$*,deploy-rollback),$(deploying) --rollback)

# X.bench: a model's times on the device, of COUNT runs, on IMAGE or what models are compared on.
bench_count   = $(or $(call given,COUNT),10)
bench_picture = $(or $(image),$(if $(filter .jpg,$(call test_kind,$1)),$(firstword $(call test_files,$1))))
%.bench: $$(if $$(call onto_wrong,$$*,bench),,$$(call onto_needs,$$*) $$(if $$(image),,$$(call test_prerequisite,$$(call model_of,$$*)))) FORCE | $(HELPERS)
	$(if $(call onto_wrong,$*,bench),$(call onto_refuse,$*,bench),@'$(VENV)/bin/python' scripts/measure_on_device.py '$(call onto_model,$*)' \
	  '$(basename $(call onto_model,$*)).bench.json' --name '$*' $(call onto_flags,$*) --count $(bench_count) $(if $(JSON),--json) \
	  $(if $(call bench_picture,$(call model_of,$*)),--picture $(call quoted,$(call bench_picture,$(call model_of,$*)))))
