# Evaluate: the ONNX, the lowered network and the finished model on many pictures, against labels and each other

# evalset: the pictures, and what is on them. It is the stanza's own; the classes' names are the network's.
eval_source = $(call path,$1,EVAL_DATASET)
evalset_flags = $(call option,$1,EVAL_COUNT,--count) \
	$(if $(names),$(if $(call path,$1,LABELS),--labels,--names-from) $(call quoted,$(names)))
evalset_parameters = $(eval_source) $(evalset_flags) $(CODE_prepare_evaluation)
evalset_made = $(BUILD)/$m/$m.evalset.json
$(BUILD)/%.evalset.json: $(BUILD)/$$m/logs/evalset.key ;+
$(BUILD)/%/logs/evalset.key: $(BUILD)/$$m/evalset.parameters $(BUILD)/.code/prepare_evaluation.text $$(call as_prerequisite,$$(call names,$$m)) \
		$$(if $$(call eval_source,$$m),$$(call pictures,$$(call eval_source,$$m)),without_labels/$$m) $$(call lost,evalset) | $(BUILD)/$$m/logs/stanza.key
	$(call stage,evalset,eval set) --in source=$(call quoted,$(call eval_source,$m)) $(if $(call names,$m),--in names=$(call quoted,$(call names,$m))) \
	  $(call helper,prepare_evaluation) $(call quoted,$(call eval_source,$m)) '{work}/$(notdir $(evalset_made))' $(call evalset_flags,$m)
without_labels/%: FORCE
	@echo >&2 'tpumake: $*_EVAL_DATASET is not set; name a folder of pictures, best with labels'
	@exit 2

# evaluate: a network or model on all of these pictures. What was found in each is kept, so that a run that was
# ended goes on where it was. What is made is called as the record: build/M/M_eval_onnx.npz,
# build/M/CHIP/M_int8.eval_model.npz.
export TPUMAKE_TOOLCHAIN = $(TOOLCHAIN_HERE)/run
evaluate_made = $(subst /logs/,/$m_,$(@:.key=.npz))
evaluate_parameters = $(call eval_source,$1) $(picture_flags) $(CODE_run_evaluation)
evaluating = $(BUILD)/$1/$1.mlir $(BUILD)/$1/$1.evalset.json $(BUILD)/$1/evaluate.parameters $(BUILD)/.code/run_evaluation.text $(call lost,evaluate)
# $(call evaluate,MODEL,WHERE IT IS KEPT,FLAGS OF THE HELPER,FLAGS OF DEPLOY)
evaluate = --in '$(BUILD)/$1/$1.mlir' --in '$(BUILD)/$1/$1.evalset.json' --in source=$(call quoted,$(eval_source)) \
	$(call helper,run_evaluation) '$(BUILD)/$1/$1.evalset.json' $(call quoted,$(eval_source)) '{work}/$(notdir $(evaluate_made))' \
	--network '$(BUILD)/$1/$1.mlir' $(call picture_flags,$1) --keep '{work}/../../$2' $3 $(if $4,-- $4)
$(BUILD)/%_eval_onnx.npz: $(BUILD)/$$m/logs/eval_onnx.key ;+
$(BUILD)/%/logs/eval_onnx.key: $$(call evaluating,$$m) $$(call as_prerequisite,$$(call onnx,$$m))
	$(call stage,evaluate,onnx) --in onnx=$(call quoted,$(call onnx,$m)) \
	  $(call evaluate,$m,$m/evaluated/onnx,--onnx $(call quoted,$(call onnx,$m)))
$(BUILD)/%_eval_cut.npz: $(BUILD)/$$m/logs/eval_cut.key ;+
$(BUILD)/%/logs/eval_cut.key: $$(call evaluating,$$m) $(BUILD)/$$m/$$m_v8.onnx
	$(call stage,evaluate,cut onnx) --in '$(BUILD)/$m/$m_v8.onnx' $(call evaluate,$m,$m/evaluated/cut,--onnx '$(BUILD)/$m/$m_v8.onnx')
# What tpu_mlir reads by itself has no ONNX.
$(BUILD)/%_eval_float.npz: $(BUILD)/$$m/logs/eval_float.key ;+
$(BUILD)/%/logs/eval_float.key: $$(call evaluating,$$m) $(BUILD)/$$m/$$m_top_f32_all_weight.npz
	$(call stage,evaluate,float mlir) --needs '$(TOOLS)' --in '$(BUILD)/$m/$m_top_f32_all_weight.npz' \
	  $(call evaluate,$m,$m/evaluated/float,--model '$(BUILD)/$m/$m.mlir' --beside '$(BUILD)/$m/$m_top_f32_all_weight.npz' $(also))
also = --also requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt
lowered = $(BUILD)/$1/$(CHIP)/$1_$2_lowered
$(BUILD)/%.eval_lowered.npz: $(BUILD)/$$m/$(CHIP)/logs/$$v.eval_lowered.key ;+
$(BUILD)/%.eval_lowered.key: $$(call evaluating,$$m) $$(addprefix $$(call lowered,$$m,$$v),.mlir _weight.npz) $(BUILD)/$$m/$(CHIP)/$$v.parameters
	$(call stage,evaluate,$v mlir) --needs '$(TOOLS)' --in '$(call lowered,$m,$v).mlir' --in '$(call lowered,$m,$v)_weight.npz' \
	  $(call evaluate,$m,$m/$(CHIP)/evaluated/$v.lowered,--model '$(call lowered,$m,$v).mlir' --beside '$(call lowered,$m,$v)_weight.npz' $(also),$(call input_flags,$m,$v))
$(BUILD)/%.eval_model.npz: $(BUILD)/$$m/$(CHIP)/logs/$$v.eval_model.key ;+
$(BUILD)/%.eval_model.key: $$(call evaluating,$$m) $(BUILD)/$$m/$(CHIP)/$$m_$$v.$(MODEL) $(BUILD)/$$m/$(CHIP)/$$v.parameters
	$(call stage,evaluate,$v model) --needs '$(TOOLS)' --in '$(BUILD)/$m/$(CHIP)/$m_$v.$(MODEL)' \
	  $(call evaluate,$m,$m/$(CHIP)/evaluated/$v.model,--model '$(BUILD)/$m/$(CHIP)/$m_$v.$(MODEL)' $(also),$(call input_flags,$m,$v))
# Of deploy's flags those that say what the input is: the others change the model or nothing.
input_flags = --processor $(CHIP) $(if $(call fused,$1),--fuse_preprocess $(call option,$1,CUSTOMIZATION_FORMAT,--customization_format) \
	$(call switches,$1,ALIGNED_INPUT))

# X.eval, X being a model (all of its variants) or one variant of it. QUICK=1: without the emulator.
quick = $(filter 1,$(call given,QUICK))
float_found = $(if $(call direct,$1),float,onnx)
eval_raw  = $(BUILD)/$1/$1.evalset.json $(foreach each,$(if $(call direct,$1),float,onnx cut),$(BUILD)/$1/$1_eval_$(each).npz) \
	$(foreach each,$2,$(foreach kind,lowered $(if $(quick),,model),$(BUILD)/$1/$(CHIP)/$1_$(each).eval_$(kind).npz))
eval_runs = $(foreach each,$(if $(call direct,$1),float,onnx cut),--run $(each) - '$(BUILD)/$1/$1_eval_$(each).npz') \
	$(foreach each,$2,$(foreach kind,lowered $(if $(quick),,model),--run $(kind) $(each) '$(BUILD)/$1/$(CHIP)/$1_$(each).eval_$(kind).npz'))
eval_flags = --chip $(CHIP) --suffix $(MODEL) $(call option,$1,MAX_DROP,--max-drop)
eval_wanted = $(if $1,$(if $(already),$(error $1: $(unlike)))$(if $(call eval_source,$1),$(or $(call eval_absent,$1),$(if $2,$(call eval_raw,$1,$2),$3)),without_labels/$1))
eval_absent = $(foreach each,$(eval_source) $(call path,$1,LABELS),$(if $(wildcard $(each)),,$(call as_prerequisite,$(each))))
%.eval: $$(call eval_wanted,$$(call model_of,$$*),$$(call variants,$$*),$$*) FORCE | $(HELPERS)
	$(if $(call model_of,$*),,$(error there is no $* to evaluate; make list shows what can be built))
	@'$(VENV)/bin/python' scripts/evaluate.py '$*' '$(BUILD)/$(call model_of,$*)/$(call model_of,$*).evalset.json' \
	  $(call eval_runs,$(call model_of,$*),$(call variants,$*)) $(call eval_flags,$(call model_of,$*)) $(if $(quick),--quick) \
	  $(foreach each,$(call variants,$*),--write $(each) $(call model_of,$*)_$(each) '$(BUILD)/$(call model_of,$*)/$(CHIP)/$(call model_of,$*)_$(each).eval.json') \
	  $(patsubst %,--confidence '%',$(call given,CONF)) $(if $(JSON),--json)

# accuracy: the gate. Where MAX_DROP is set, a model that loses more is put aside, as the contract does it. The
# emulator decides, against the network as it came.
unlike = it comes quantised, so there is no float network to hold it against
ungateable = $(if $(measured),$(if $(already),$1_$(measured): $(unlike),$(if $(eval_source),$(if $(wildcard $(eval_source)),,there is no $(eval_source)$(comma) which \
	$1_EVAL_DATASET names),$1_EVAL_DATASET is not set; $1_$(measured) wants a folder of labelled pictures)))
measured   = $(firstword $(foreach each,MAX_DROP $(if $(filter mix,$2),QTABLE_GOAL),$(if $(call get,$1,$(each)),$(each))))
gated = $(call validating,$(if $(call get,$1,MAX_DROP),$(BUILD)/$1/$(CHIP)/$1_$2.accuracy.json))
# The records of what a build measures because of MAX_DROP or QTABLE_GOAL, in their order.
measured_records = $(if $(measured),$(BUILD)/$1/logs/evalset.key $(BUILD)/$1/logs/eval_$(float_found).key \
	$(if $(gated),$(addprefix $(BUILD)/$1/$(CHIP)/logs/$2.,eval_model.key layers.key accuracy.key)))
accuracy_flags = $(eval_flags) --gate
accuracy_parameters = $(accuracy_flags) $(CODE_evaluate)
accuracy_made = $(BUILD)/$m/$(CHIP)/$m_$v.accuracy.json
$(BUILD)/%.accuracy.json: $(BUILD)/$$m/$(CHIP)/logs/$$v.accuracy.key ;+
$(BUILD)/%.accuracy.key: $(BUILD)/$$m/$(CHIP)/$$m_$$v.$(MODEL) $(BUILD)/$$m/$$m.evalset.json $(BUILD)/$$m/$$m_eval_$$(call float_found,$$m).npz \
		$(BUILD)/$$m/$(CHIP)/$$m_$$v.eval_model.npz $(BUILD)/$$m/$(CHIP)/accuracy.parameters $(BUILD)/.code/evaluate.text $$(call lost,accuracy) \
		$(BUILD)/$$m/$(CHIP)/$$m_$$v.layers.json \
		| $$(call side_car,$$m,$$v)
	$(eval built_$m_$v := 1)
	$(call stage,accuracy) --untimed --in '$<' --in '$(word 2,$^)' --in '$(word 3,$^)' --in '$(word 4,$^)' \
	  --in '$(BUILD)/$m/$(CHIP)/$m_$v.layers.json' \
	  --refuse '$<' $(if $(call side_car,$m,$v),--refuse '$(call side_car,$m,$v)') \
	  $(call helper,evaluate) '$m_$v' '$(word 2,$^)' --run $(call float_found,$m) - '$(word 3,$^)' --run model $v '$(word 4,$^)' \
	  --write $v $m_$v '{work}/$(notdir $(accuracy_made))' $(call accuracy_flags,$m) --layers '$(BUILD)/$m/$(CHIP)/$m_$v.layers.json'
