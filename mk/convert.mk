# Convert: a network without a stanza. One is inferred from it and the pictures, and another make
# builds what it says; `add` keeps it.

# From the command line alone. MODEL: the network; IMAGES: pictures to calibrate with; NAME: what it
# is called, by default what its file is called; VARIANT: what to build. And any stanza variable.
converted_file = $(patsubst %/,%,$(patsubst ~/%,$(HOME)/%,$(subst $(space),?,$(strip $1))))
network   = $(call converted_file,$(given_model))
photos    = $(call converted_file,$(call given,IMAGES))
precision = $(or $(call given,VARIANT),int8)
# A file's name as one that a file of ours may have: $(call sober,NAME,LETTERS).
sober     = $(if $2,$(call sober,$(subst $(firstword $2),_,$1),$(wordlist 2,$(words $2),$2)),$1)
ODD_TO_SHELLS := ( ) [ ] { } * ? ' " ` $$ & ; | < > \# ! \\
ODD      := $(ODD_TO_SHELLS) % : = $(comma) ~ @ ^ +
stanza    = $(if $(network),$(BUILD)/convert/$(call sober,$(or $(subst $(space),_,$(call given,NAME)),$(basename $(notdir $(network)))),$(ODD)).mk)
# What else is on the command line belongs to the stanza, or is misspelt.
answers   = $(filter-out $(KNOBS) MODEL IMAGES NAME VARIANT JSON LIST FILE UPGRADE BENCH_% ASYMMETRIC_% -%,$(foreach \
	each,$(.VARIABLES),$(if $(filter command,$(origin $(each))),$(each))))
asked     = $(call quoted,$(network)) $(call quoted,$(photos)) $(if $(call given,NAME),--name $(call shell_word,$(call given,NAME))) \
	$(if $(call given,VARIANT),--set 'VARIANTS=$(precision)') $(foreach each,$(sort $(answers)),--set $(call shell_word,$(each)=$($(each))))
CODE_infer_stanza := $(LOCK) scripts/infer_stanza.py schemas/stanza.schema.json $(wildcard scripts/tpumake/inference/*.py) \
	$(call library,stanza onnx_io caffe tflite labels lists pictures)
# Not what is built here.
to_infer_from = $(if $(findstring |,$(network)),,$(filter-out %.cvimodel %.bmodel,$(network)))
# Not in the inner make, which reads what this makes.
ifeq ($(filter $(BUILD)/convert/%,$(STANZAS)),)
$(BUILD)/convert/%.asked: $$(call differs,$$@,$$(asked)) | $(BUILD)/convert/
	@:$(call write,$@,$(asked))
$(BUILD)/convert/%.mk: $(BUILD)/convert/%.asked $(CODE_infer_stanza) $$(call as_prerequisite,$$(if $$(wildcard $$(to_infer_from)),$$(to_infer_from))) | $(HELPERS)
	+@$(if $(JSON),>&2) '$(VENV)/bin/python' scripts/infer_stanza.py --out '$@' $(addprefix --taken ,$(MODELS)) $(asked)
endif

.PHONY: convert converted add possible-convert
possible-convert:
	$(if $(and $(from),$(filter add,$(MAKECMDGOALS))),@echo >&2 $(call shell_word,tpumake: add writes paths as they are seen from here$(comma) and PATHS_FROM=$(PATHS_FROM) would see them from there: make convert shows the stanza); exit 2)
	$(if $(and $(network),$(photos)),$(if $(filter-out $(VARIANTS),$(precision)),@echo >&2 $(call quoted,tpumake: VARIANT=$(precision): there are $(VARIANTS)); exit 2),\
	  @echo >&2 'tpumake: which $(if $(network),pictures,network)? make $(firstword $(filter convert add,$(MAKECMDGOALS))) MODEL=~/best.onnx IMAGES=~/photos'; exit 2)
convert: possible-convert $$(stanza)
	+@$(MAKE) --no-print-directory STANZAS='$(stanza)' PATHS_FROM= converted
# In the inner make: its one model.
converted: $$(foreach each,$$(MODELS),$$(addprefix $$(each)_,$$(precision)))
	@:$(if $(JSON),,$(foreach each,$^,$(if $(built_$(each)),,$(info → $(BUILD)/$(MODELS)/$(CHIP)/$(each).$(MODEL)))))
	@$(if $(JSON),:,printf '%s\n' $(call shell_word,  to keep its stanza: make add $(to_keep)))
to_keep = $(strip $(call argument,MODEL,$(given_model)) $(foreach each,IMAGES NAME VARIANT $(sort $(answers)),$(if $(call given,$(each)),$(call argument,$(each),$(call given,$(each))))))
argument = $1=$(if $(filter $(subst $(space),?,$2),$(call sober,$(subst $(space),?,$2),$(ODD_TO_SHELLS))),$2,'$(subst ','\'',$2)')

add: possible-convert $$(stanza)
	@'$(VENV)/bin/python' scripts/add_stanza.py '$(stanza)' $(call quoted,$(subst $(space),?,$(STANZAS))) $(addprefix --taken ,$(MODELS)) $(addprefix --variant ,$(VARIANTS))
