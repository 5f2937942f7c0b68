# Prints what each stage of tiny is told: what a change of a variable changes here makes it stale.
include Makefile
.PHONY: told
told:
	@:$(info dataset $(call dataset,tiny) $(call set_flags,$(call set_user,$(call dataset,tiny))) $(call tune,tiny))
	@:$(foreach each,import downgrade transform calibrate qtable float onnx contract evalset accuracy,$(info $(each) $(call $(each)_parameters,tiny)))
	@:$(info goal $(call goal_flags,tiny))
	@:$(foreach each,$(VARIANTS),$(info $(each) $(call $(each)_parameters,tiny)))
