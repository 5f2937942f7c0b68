# Matrix: what a build server is to build, a job for each target, as one JSON document for GitHub's `matrix:`.

# CHANGED: a git revision; only what has changed since then is to be built.
CHANGED ?=
KNOBS += CHANGED
.PHONY: matrix
matrix:
	@$(HOST_PYTHON) -S scripts/plan_matrix.py --make '$(MAKE_COMMAND)' $(addprefix --code ,$(DOES_THE_WORK)) \
	  --from=$(call quoted,$(or $(from),.)) $(foreach each,$(STANZAS),--stanzas=$(call shell_word,$(each))) \
	  $(if $(LIST),--list=$(call shell_word,$(LIST))) $(if $(CHANGED),--changed=$(call shell_word,$(CHANGED)))
# What a change of has everything built anew. Keys know better; here it is only what to look at.
DOES_THE_WORK = Makefile mk scripts schemas devices $(wildcard requirements/*.txt)

# For list JSON=1 INPUTS=1: what each model depends on. Its stanza's settings, the files and folders that these name, and
# the extras that its network needs.
models_json    = $(info , "models": {)$(foreach each,$(MODELS),$(info $(call model_json,$(each))$(if $(filter $(lastword $(MODELS)),$(each)),,$(comma))))$(info })
model_json     = "$1": {"settings": {$(settings_json)}, "inputs": {$(inputs_json)}, \
	"extras": $(call json_list,$(sort $(if $(call direct,$1),$(reader),$(framework))))}
settings_json  = $(call json_items,$(foreach part,$(STANZA_PARTS),$(foreach each,$(STANZA_$(part)),$(if \
	$(call get,$1,$(each)),$(call json_item,$(each),$(call get,$1,$(each)))))))
inputs_json    = $(call json_items,$(foreach name,$(FILES) DATASET $(LISTS),$(if $(call input_files,$1,$(name)),"$(name)":[$(call \
	json_words,$(call input_files,$1,$(name)))])))
input_files    = $(if $(call file_of,$1,$2),$(if $(filter TEST_INPUT,$2),$(test_files),$(call file_of,$1,$2)))
json_words     = $(subst $(space),$(comma),$(strip $(foreach each,$1,$(call json,$(each)))))

# setup.key: what the environments are made from, as one digest, for a build server's cache to have them under.
MADE_FROM = $(HELPERS_FROM) $(TOOLS_FROM) $(REPORT_FROM) $(foreach each,$(EXTRA),$(call extra_from,$(each)))
.PHONY: setup.key
setup.key:
	@cat $(MADE_FROM) | sha256sum | cut -c 1-16
