# Layers: what a precision does to each of them, beside the float network

# From the command line alone. COUNT: of so many of the calibration set's samples.
layers_count = $(or $(call given,COUNT),4)
layers_parameters = $(layers_count) $(calibration_set) $(CODE_measure_layers)
layers_made = $(BUILD)/$m/$(CHIP)/$m_$v.layers.json
$(BUILD)/%.layers.json: $(BUILD)/$$m/$(CHIP)/logs/$$v.layers.key ;+
$(BUILD)/%.layers.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz \
		$(BUILD)/$$m/$(CHIP)/$$m_$$v_lowered.mlir $(BUILD)/$$m/$(CHIP)/$$m_$$v_lowered_weight.npz \
		$(BUILD)/$$m/$(CHIP)/$$v.parameters $(BUILD)/$$m/layers.parameters $$(call calibrated,$$m,$$v) $$(call calibration_set,$$m) \
		$(BUILD)/.code/measure_layers.text $$(call lost,layers)
	$(call stage,layers,$v layers) --in '$<' --in '$(word 2,$^)' --in '$(word 3,$^)' --in '$(word 4,$^)' $(call tables,$m,$v) \
	  --in dataset='$(BUILD)/datasets/$(call dataset,$m)' --in run_network.py=scripts/toolchain/run_network.py \
	  $(call inside,measure_layers) --network $m.mlir --model $(notdir $(word 3,$^)) --samples dataset --count $(layers_count) \
	  --target $m_$v $(notdir $(layers_made)) $(call deploy_flags,$m,$v)

# X.layers, X being a model (all of its variants) or one variant of it.
layers_of = $(foreach each,$(call variants,$1),$(BUILD)/$(model_of)/$(CHIP)/$(model_of)_$(each).layers.json)
%.layers: $$(if $$(call already,$$(call model_of,$$*)),,$$(call layers_of,$$*)) FORCE | $(HELPERS)
	$(if $(call model_of,$*),,$(error there is no $* whose layers could be measured; make list shows what there is))
	$(if $(call already,$(call model_of,$*)),@echo >&2 'tpumake: $(call model_of,$*) comes quantised: there is no float network to measure it by'; exit 2)
	@'$(VENV)/bin/python' scripts/show_layers.py $(if $(JSON),--json) $(patsubst %,'%',$(call layers_of,$*))
