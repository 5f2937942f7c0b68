# Detect: one picture through the ONNX, tpu_mlir's networks and the finished models, side by side

# From the command line alone: the environment has other things under these names.
# IMAGE: the picture; OUT: the drawing; CONF, IOU: least score, and most overlap of two boxes.
given = $(if $(filter command,$(origin $1)),$($1))
image = $(patsubst ~/%,$(HOME)/%,$(subst $(space),?,$(call given,IMAGE)))

# So that Make says that it is missing.
sources: $(call as_prerequisite,$(image))

# picture: in the network's size. Ultralytics' networks know grey borders, so 114, and not tpu_mlir's
# 0, is the ground where the stanza names no PAD_VALUE.
picture_flags = $(if $(filter undefined,$(origin $1_PAD_VALUE)),,$(call option,$1,PAD_VALUE,--ground))
picture_parameters = $(image) $(picture_flags) $(CODE_letterbox_picture)
picture_made = $(BUILD)/$m/$m.picture.png
$(BUILD)/%.picture.png: $(BUILD)/$$m/logs/picture.key ;+
$(BUILD)/%/logs/picture.key: $(BUILD)/$$m/$$m.mlir $$(call as_prerequisite,$$(image)) $(BUILD)/$$m/picture.parameters \
		$(BUILD)/.code/letterbox_picture.text $$(call lost,picture)
	$(call stage,picture) --in '$<' --in picture=$(call quoted,$(image)) \
	  $(call helper,letterbox_picture) $(call quoted,$(image)) '{work}/$(notdir $(picture_made))' --network '$<' $(call picture_flags,$m)

# onnx: the network as it came.
labels = $(if $(call path,$1,LABELS),--labels $(call quoted,$(call path,$1,LABELS)))
onnx_parameters = $(call onnx,$1) $(labels) $(CODE_run_onnx)
onnx_made = $(BUILD)/$m/$m.onnx.npz
$(BUILD)/%.onnx.npz: $(BUILD)/$$m/logs/onnx.key ;+
$(BUILD)/%/logs/onnx.key: $(BUILD)/$$m/$$m.picture.png $(BUILD)/$$m/$$m.mlir $$(call as_prerequisite,$$(call onnx,$$m)) \
		$$(call as_prerequisite,$$(call path,$$m,LABELS)) $(BUILD)/$$m/onnx.parameters $(BUILD)/.code/run_onnx.text $$(call lost,onnx)
	$(call stage,onnx) --in '$<' --in '$(word 2,$^)' \
	  --in source=$(call quoted,$(call onnx,$m)) $(if $(call path,$m,LABELS),--in labels=$(call quoted,$(call path,$m,LABELS))) \
	  $(call helper,run_onnx) $(call quoted,$(call onnx,$m)) '$<' '{work}/$(notdir $(onnx_made))' --input '$(word 2,$^)' $(call labels,$m)

# run: tpu_mlir's float network in its interpreter, the lowered one there, too, and the model on the chip's emulator.
# What is made is called as the record: build/M/M_float.npz, build/M/CHIP/M_int8.emulated.npz.
run_made = $(subst /logs/,/$m_,$(@:.key=.npz))
$(BUILD)/%_float.npz: $(BUILD)/$$m/logs/float.key ;+
$(BUILD)/%/logs/float.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz $(BUILD)/$$m/$$m.picture.png \
		$(BUILD)/.code/run_network.text $$(call lost,run)
	$(call stage,run,float mlir) --in '$<' --in '$(word 2,$^)' --in picture.png='$(word 3,$^)' \
	  $(call inside,run_network) --network $m.mlir --model $m.mlir --picture picture.png $(notdir $(run_made))
$(BUILD)/%.lowered.npz: $(BUILD)/$$m/$(CHIP)/logs/$$v.lowered.key ;+
$(BUILD)/%.lowered.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$(CHIP)/$$m_$$v_lowered.mlir $(BUILD)/$$m/$(CHIP)/$$m_$$v_lowered_weight.npz \
		$(BUILD)/$$m/$$m.picture.png $(BUILD)/$$m/$(CHIP)/$$v.parameters $(BUILD)/.code/run_network.text $$(call lost,run)
	$(call stage,run,$v mlir) --in '$<' --in '$(word 2,$^)' --in '$(word 3,$^)' --in picture.png='$(word 4,$^)' \
	  $(call inside,run_network) --network $m.mlir --model $(notdir $(word 2,$^)) --picture picture.png $(notdir $(run_made)) $(call deploy_flags,$m,$v)
$(BUILD)/%.emulated.npz: $(BUILD)/$$m/$(CHIP)/logs/$$v.emulated.key ;+
$(BUILD)/%.emulated.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$(CHIP)/$$m_$$v.$(MODEL) $(BUILD)/$$m/$$m.picture.png $(BUILD)/.code/run_network.text \
		$$(call lost,run)
	$(call stage,run,$v model) --in '$<' --in '$(word 2,$^)' --in picture.png='$(word 3,$^)' \
	  $(call inside,run_network) --network $m.mlir --model $(notdir $(word 2,$^)) --picture picture.png $(notdir $(run_made)) $(call deploy_flags,$m,$v)

# lower: the chip's operations and precision, which model_deploy makes first and throws away. Of its
# flags, lowering and the input know which are theirs.
lower_made = $(addprefix $(BUILD)/$m/$(CHIP)/$m_$v_lowered,.mlir _weight.npz)
$(BUILD)/%_lowered.mlir: $(BUILD)/$$m/$(CHIP)/logs/$$v.lower.key ;+
$(BUILD)/%_lowered_weight.npz: $(BUILD)/$$m/$(CHIP)/logs/$$v.lower.key ;+
$(BUILD)/%.lower.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz \
		$(BUILD)/$$m/$(CHIP)/$$v.parameters $$(call calibrated,$$m,$$v) $(BUILD)/.code/lower_network.text $$(call lost,lower)
	$(call stage,lower,$v lower) --in '$<' --in '$(word 2,$^)' $(call tables,$m,$v) \
	  $(call inside,lower_network) --mlir $m.mlir --lowered $m_$v_lowered.mlir $(call deploy_flags,$m,$v)

# X.detect, X being a model (all of its variants) or one variant of it.
variants  = $(filter $(BUILT),$(if $(filter $(MODELS),$1),$(call get,$1,VARIANTS),$(variant_of)))
# What a network came as is run where that is ONNX. It comes first: it tells whether it is a detector.
raw       = $(if $(call direct,$1),,$(BUILD)/$1/$1.onnx.npz) $(BUILD)/$1/$1_float.npz \
	$(foreach each,$2,$(BUILD)/$1/$(CHIP)/$1_$(each).lowered.npz $(BUILD)/$1/$(CHIP)/$1_$(each).emulated.npz)
runs      = $(if $(call direct,$1),,--run ONNX '$(BUILD)/$1/$1.onnx.npz' --names-from $(call quoted,$(call onnx,$1))) \
	--run 'float mlir' '$(BUILD)/$1/$1_float.npz' $(foreach each,$2,--run '$(call upper,$(each)) mlir' '$(BUILD)/$1/$(CHIP)/$1_$(each).lowered.npz' \
	--run '$(call upper,$(each)) $(MODEL)$(comma) emulated' '$(BUILD)/$1/$(CHIP)/$1_$(each).emulated.npz')
drawing   = $(or $(call given,OUT),$(BUILD)/$1/$(CHIP)/$2.detect.png)
# What is not there is told before anything is built.
absent    = $(foreach each,$(image) $(call path,$1,LABELS),$(if $(wildcard $(each)),,$(call as_prerequisite,$(each))))
needed    = $(if $(and $(image),$1),$(or $(call absent,$1),$(if $2,$(call raw,$1,$2),$3)))
%.detect: $$(call needed,$$(call model_of,$$*),$$(call variants,$$*),$$*) FORCE | $(HELPERS)
	$(if $(call model_of,$*),,$(error there is no $* to detect with; make list shows what can be built))
	$(if $(image),,@echo >&2 'tpumake: which picture? make $@ IMAGE=photo.jpg'; exit 2)
	@'$(VENV)/bin/python' scripts/detect.py $(call quoted,$(image)) $(call quoted,$(subst $(space),?,$(call drawing,$(call model_of,$*),$*))) \
	  --network '$(BUILD)/$(call model_of,$*)/$(call model_of,$*).mlir' $(call runs,$(call model_of,$*),$(call variants,$*)) \
	  $(call labels,$(call model_of,$*)) $(patsubst %,--confidence '%',$(call given,CONF)) $(patsubst %,--overlap '%',$(call given,IOU)) $(if $(JSON),--json)
