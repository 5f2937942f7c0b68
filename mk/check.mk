# Check: what is known of a model before the first tool runs, as JSON for scripts/preflight.py.

json = "$(subst ",\",$(subst \,\\,$1))"
assigned = $(sort $(filter-out $(call own,$1) $(addsuffix _%,$(filter $1_%,$(MODELS))) $(addprefix $1_,$(filter-out $(ordered),$(SOURCES))),$(filter $1_%,$(.VARIABLES))))
stanza_parameters = {$(foreach each,$(call assigned,$1),$(call json,$(each:$1_%=%)): $(call json,$(strip $($(each)))),)"model": "$1", "plan": $(plan)}
CHECKED := INPUT_SHAPES OUTPUTS MEAN SCALE PIXEL_FORMAT CHANNEL_FORMAT FUSE_PREPROCESS QUANT_OUTPUT INPUT_NUM DATA_LIST URL \
	VARIANTS SILENCE CALIBRATOR
plan = {"chip": "$(CHIP)", "version": "$(TPU_MLIR_VERSION)", "device": "$(device)", "kind": "$(or $(kind),ONNX)", \
	"source": $(call json_path,$(source)), "labels": $(call json_path,$(call file_of,$1,LABELS)), \
	"test_inputs": $(call json_path,$(if $(call get,$1,TEST_INPUT),$(test_files))), \
	"validating": "$(call validating,1)", "dataset": $(call json_path,$(call path,$1,$(samples))), \
	"counts": {$(call json_items,$(foreach each,$(sort $(suffix $(listing))),$(call json_item,$(each),$(words $(filter %$(each),$(listing))))))}, \
	"refused": {$(call json_items,$(foreach each,$(VARIANTS),$(call json_item,$(each),$(call impossible,$1,$(each)))))}, \
	"values": {$(call json_items,$(foreach each,$(CHECKED),$(call json_item,$(each),$(call get,$1,$(each)))))}}
# Several paths are a line each. In items spaces are `?`, since they separate them.
json_path  = "$(subst ?,$(space),$(subst $(space),\n,$(subst ",\",$(subst \,\\,$(strip $1)))))"
json_item  = "$1":$(subst $(space),?,$(call json,$2))
json_items = $(subst ?,$(space),$(subst $(space),$(comma) ,$(strip $1)))
# The files of the dataset, listed once; names alone, of which a few are looked into.
listing = $(if $(filter undefined,$(origin listing_of_$1)),$(eval listing_of_$1 := $$(foreach each,$$(call within,$$(call path,$1,$$(samples))),$$(if $$(suffix $$(each)),$$(each)))))$(listing_of_$1)
# Names with spaces fall apart into words that are no files: those aren't looked into.
looked_into = $(wildcard $(wordlist 1,$2,$(call plain,$(filter-out %.json %.txt %.md %.yaml %.xml %.csv,$(listing)))))
# What is one file can be looked into.
one_file = $(if $(filter SAVEDMODEL PADDLE,$(kind)),,$(source))

# X.check, X being a model (all of its variants) or one variant of it; doctor: the machine, and all models.
%.check: $$(addprefix $(BUILD)/,$$(addsuffix /stanza.parameters,$$(call model_of,$$*))) FORCE | $(HELPERS)
	$(if $(call model_of,$*),,$(error there is no $* to check; make list shows what can be built))
	@'$(VENV)/bin/python' scripts/preflight.py '$<' --target '$*' $(if $(JSON),--json) --build '$(BUILD)' --toolchain '$(TOOLCHAIN_HERE)' \
	  $(addprefix --variant ,$(if $(filter $(MODELS),$*),$(call get,$*,VARIANTS),$(call variant_of,$*))) $(call samples_of,$(call model_of,$*),24)
.PHONY: doctor
doctor: $$(patsubst %,$(BUILD)/%/stanza.parameters,$$(MODELS))
	@$(HOST_PYTHON) scripts/doctor.py --build '$(BUILD)' --toolchain '$(TOOLCHAIN_HERE)' --venv '$(VENV)' $(if $(JSON),--json) \
	  $(foreach each,$(KNOWN_EXTRAS),--extra '$(dir $(call extra_ready,$(each)))') $(MODELS:%='$(BUILD)/%/stanza.parameters')
