# Goal: the float layers of a mixed model, searched until its accuracy is good enough

# goal: in place of run_qtable's table the cheapest one with which mAP50 (top-1) drops by QTABLE_GOAL at most, on
# the pictures that the stanza is evaluated on. Tables are tried on the lowered network; what was found with
# each is kept, so that a search that was ended goes on where it was.
goal_flags = --goal $(call get,$1,QTABLE_GOAL) --mode $(float_mode) --chip $(CHIP)
goal_parameters = $(goal_flags) $(picture_flags) $(lowering_flags) $(eval_source) $(CODE_search_qtable)
goal_made = $(addprefix $(BUILD)/$m/$(CHIP)/$m_,goal_table goal.json)
$(BUILD)/%_goal_table: $(BUILD)/$$m/$(CHIP)/logs/goal.key ;+
$(BUILD)/%_goal.json: $(BUILD)/$$m/$(CHIP)/logs/goal.key ;+
$(BUILD)/%/$(CHIP)/logs/goal.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz $(BUILD)/$$m/$$m_calib_table \
		$(BUILD)/$$m/$$m.evalset.json $(BUILD)/$$m/$$m_eval_$$(call float_found,$$m).npz $(BUILD)/$$m/$(CHIP)/goal.parameters \
		$(BUILD)/.code/search_qtable.text $$(call lost,goal)
	$(call stage,goal) --needs '$(TOOLS)' --in '$<' --in '$(word 2,$^)' --in '$(word 3,$^)' --in '$(word 4,$^)' --in '$(word 5,$^)' \
	  --in source=$(call quoted,$(call eval_source,$m)) \
	  $(call helper,search_qtable) '$(word 4,$^)' $(call quoted,$(call eval_source,$m)) '$(word 5,$^)' \
	  '{work}/$(notdir $(word 1,$(goal_made)))' '{work}/$(notdir $(word 2,$(goal_made)))' --network '$<' --beside '$(word 2,$^)' --beside '$(word 3,$^)' \
	  --name $m_mix --keep '{work}/../../$m/$(CHIP)/evaluated/goal' $(call goal_flags,$m) $(call picture_flags,$m) -- $(call lowering_flags,$m)
# Of deploy's flags those that lowering looks at.
lowering_flags = --quantize INT8 --calibration_table $1_calib_table $(input_flags) $(call switches,$1,IGNORE_F16_OVERFLOW) \
	$(call unusual,$1,NUM_CORE NUM_DEVICE)
