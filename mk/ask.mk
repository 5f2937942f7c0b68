# What tells of models and builds nothing new: outputs, info, list, reproduce, bugreport.

%.outputs: $$(call seen,$$(call model_of,$$*)) FORCE | $(HELPERS)
	$(if $(call model_of,$*),,$(error there is no $* whose outputs could be shown; make list shows what there is))
	$(if $(call direct,$(call model_of,$*)),@echo >&2 'tpumake: $(call model_of,$*) is no ONNX; only in one are outputs found'; exit 2)
	@'$(VENV)/bin/python' scripts/show_outputs.py $(call quoted,$(call onnx,$(call model_of,$*))) \
	  --device '$(call get,$(call model_of,$*),DEVICE)' --outputs $(call quoted,$(call get,$(call model_of,$*),OUTPUTS)) $(if $(JSON),--json)
seen = $(if $1,$(if $(call direct,$1),,$(call as_prerequisite,$(call onnx,$1))))

.PHONY: list info
info: | $(HELPERS)
	@$(if $(FILE),'$(VENV)/bin/python' scripts/model_info.py $(if $(JSON),--json) --device $(DEVICE) $(call shell_word,$(FILE)),echo >&2 'tpumake: which file? make info FILE=x.cvimodel'; exit 2)

# reproduce: what is built twice from nothing, under other conditions, has the same bytes.
# The models that a target belongs to, and where what they are built from is.
reproduced = $(strip $(foreach each,$(MODELS),$(if $(filter all $(each) $(addprefix $(each)_,$(VARIANTS)) \
	$(BUILD)/$(each)/% $(BUILD)/datasets/$(call dataset,$(each))/%,$1),$(each))))
sources_of = $(foreach name,$(FILES) DATASET $(LISTS),$(if $(call file_of,$1,$(name)),--source $1_$(name)=$(call quoted,$(call file_of,$1,$(name)))))
%.reproduce: FORCE | $(HELPERS)
	@$(if $(call reproduced,$*),,$(error there is no $* to reproduce; make list shows what can be built))
	@'$(VENV)/bin/python' scripts/reproduce.py '$*' $(if $(JSON),--json) --build '$(BUILD)' --make '$(MAKE_COMMAND)' \
	  $(addprefix --makefile ,$(filter-out mk/%,$(MAKEFILE_LIST))) --environment '$(VENV)' --environment '$(TOOLCHAIN)' \
	  $(foreach each,$(call reproduced,$*),$(call sources_of,$(each)))

# bugreport: what a maintainer would ask for, in one archive: about a model, one of its variants, or
# what failed last. BUGREPORT: weights, pictures, or both: these, too.
BUGREPORT ?=
KNOBS += BUGREPORT
.PHONY: bugreport
report = @$(HOST_PYTHON) scripts/pack_bugreport.py --build '$(BUILD)' --make-version '$(MAKE_VERSION)' --also $(call shell_word,$(BUGREPORT)) \
	$(foreach each,$(MODELS),--network $(each)=$(call quoted,$(call source,$(each))) $(if $(call get,$(each),$(call samples,$(each))),--set '$(each)=$(call dataset,$(each))')) \
	$(addprefix --lock ,$(wildcard requirements/*.txt)) --environment VENV='$(VENV)' --environment TOOLCHAIN='$(TOOLCHAIN_HERE)'
bugreport:
	$(report)
%.bugreport: FORCE
	@$(if $(call model_of,$*),,$(error there is no $* to report on; make list shows what can be built))
	$(report) --model '$(call model_of,$*)' --chip $(CHIP) --variant '$(patsubst $(call model_of,$*),,$(call variant_of,$*))'

# With JSON=1: all that can be built for this chip, what it is built from, and the records of its stages. INPUTS=1:
# what each model depends on, too, which only a matrix asks for.
list:
	@:$(if $(JSON),$(list_json),$(foreach each,$(MODELS),$(info $(each): $(addprefix $(each)_,$(call get,$(each),VARIANTS)))))
json_list = [$(subst $(space),$(comma) ,$(patsubst %,"%",$(strip $1)))]
target_json = {"target": "$1_$2", "model": "$1", "variant": "$2", \
	"declared": $(if $(filter $2,$(call get,$1,VARIANTS)),true,false), \
	"refused": $(if $(call impossible,$1,$2),$(call json,$(call impossible,$1,$2)),null), \
	"output": "$(BUILD)/$1/$(CHIP)/$1_$2.$(MODEL)", "sources": {$(call sources_json,$1)}, \
	"records": $(call json_list,$(BUILD)/$1/logs/stanza.key $(call contract_record,$1,$2) $(call measured_records,$1,$2) $(subst ',,$(call records,$1,$2)))}
# The last one is the model's own.
contract_record = $(if $(bound),$(BUILD)/$1/$(CHIP)/logs/$2.contract.key)
sources_json = $(subst ?,$(space),$(subst $(space),$(comma) ,$(strip $(foreach name,$(call kind,$1) CAFFEMODEL TEST_INPUT,$(if \
	$(call path,$1,$(name)),"$1_$(name)":$(call json,$(call path,$1,$(name))))))))
last_target = $(lastword $(MODELS))_$(lastword $(VARIANTS))
list_json = $(info {"$$schema": "list.schema.json", "chip": "$(CHIP)", "chips": $(call json_list,$(CHIPS)), "targets": [)$(foreach \
	which,$(MODELS),$(foreach how,$(VARIANTS),$(info $(call target_json,$(which),$(how))$(if \
	$(filter $(last_target),$(which)_$(how)),,$(comma)))))$(info ])$(if $(call given,INPUTS),$(models_json))$(info })
