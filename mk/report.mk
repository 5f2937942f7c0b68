# Report: all that is known of a build, on one page

# What draws the page; made when the first report is.
REPORT_VENV ?= .report
REPORT      := $(REPORT_VENV)/ready
REPORT_FROM := requirements/report.txt
KNOBS += REPORT_VENV
$(REPORT): $(call outdated,$(REPORT),$(REPORT_FROM),$(REPORT_VENV)/bin/python)
	@$(if $(JSON),>&2) $(PYTHON) scripts/setup_venv.py '$(REPORT_VENV)' $(REPORT_FROM) && cat $(REPORT_FROM) > '$@'

# report: the facts, of records and documents that other stages wrote; it computes nothing. Evaluations count
# where they are there: to make them takes minutes, and those of other variants are other builds. So Make can't
# know by times, and the stage always looks.
report_made     = $(addprefix $(BUILD)/$m/$(CHIP)/$m_$v.report,.json .pictures)
# The layers of a network that comes quantised, or takes no pictures, can't be measured.
report_layers   = $(if $(or $(call already,$1),$(call tensors,$1)),,$(BUILD)/$1/$(CHIP)/$1_$2.layers.json)
# Where float layers were searched by a goal, what was tried.
report_goal     = $(if $(filter mix,$2),$(if $(filter %_goal_table,$(float_table)),$(BUILD)/$1/$(CHIP)/$1_goal.json))
report_evals    = $(wildcard $(foreach each,$2 $(filter-out $2,$(VARIANTS)),$(BUILD)/$1/$(CHIP)/$1_$(each).eval.json))
report_built    = $(wildcard $(foreach each,$(VARIANTS),$(BUILD)/$1/$(CHIP)/logs/$(each).key))
report_measured = $(wildcard $(foreach each,$(VARIANTS),$(BUILD)/$1/$(CHIP)/logs/$(each).eval_model.key))
report_source   = $(if $(report_evals),$(call path,$1,EVAL_DATASET))
report_records  = $(BUILD)/$1/logs/stanza.key $(subst ',,$(call records,$1,$2)) $(call contract_record,$1,$2) \
	$(if $(gated),$(BUILD)/$1/$(CHIP)/logs/$2.accuracy.key)
each_as         = $(foreach each,$2,$1 '$(each)')
$(BUILD)/%.report.json: $(BUILD)/$$m/$(CHIP)/logs/$$v.report.key ;+
$(BUILD)/%.report.pictures: $(BUILD)/$$m/$(CHIP)/logs/$$v.report.key ;+
$(BUILD)/%.report.key: $(BUILD)/$$m/$(CHIP)/$$m_$$v.$(MODEL) $$(call side_car,$$m,$$v) $$(call gated,$$m,$$v) $$(call report_layers,$$m,$$v) $$(call report_goal,$$m,$$v) FORCE
	$(call stage,report,$v report) --untimed --in '$<' $(call in_numbered,record,$(call report_records,$m,$v)) \
	  $(call in_numbered,layers,$(call report_layers,$m,$v)) $(call in_numbered,eval,$(call report_evals,$m,$v)) \
	  $(call in_numbered,goal,$(call report_goal,$m,$v)) \
	  $(call in_numbered,built,$(call report_built,$m)) $(call in_numbered,measured,$(call report_measured,$m)) \
	  $(call in_numbered,source,$(call report_source,$m,$v)) $(if $(names),$(call in_numbered,names,$(call names,$m))) \
	  $(call helper,collect_report) '$<' '{work}/$(notdir $(word 1,$(report_made)))' '{work}/$(notdir $(word 2,$(report_made)))' \
	  --name $m_$v $(call each_as,--record,$(call report_records,$m,$v)) $(call each_as,--layers,$(call report_layers,$m,$v)) \
	  $(call each_as,--goal,$(call report_goal,$m,$v)) $(call each_as,--eval,$(call report_evals,$m,$v)) $(call each_as,--built,$(call report_built,$m)) \
	  $(call each_as,--evaluated,$(call report_measured,$m)) $(if $(call report_source,$m,$v),--source $(call quoted,$(call report_source,$m,$v))) \
	  $(call contract_flags,$m)

# page: the same to look at.
page_made = $(BUILD)/$m/$(CHIP)/$m_$v.report.html
$(BUILD)/%.report.html: $(BUILD)/$$m/$(CHIP)/logs/$$v.page.key ;+
$(BUILD)/%.page.key: $(BUILD)/$$m/$(CHIP)/$$m_$$v.report.json $(BUILD)/$$m/$(CHIP)/$$m_$$v.report.pictures \
		$(BUILD)/.code/render_report.text $$(call lost,page)
	$(call stage,page,$v page) --in '$<' --in '$(word 2,$^)' --needs '$(REPORT)' $(call code,$(CODE_render_report)) \
	  --top -- '$(REPORT_VENV)/bin/python' scripts/render_report.py '$<' '$(word 2,$^)' '{work}/$(notdir $(page_made))'

# X.report, X being a model (all of its variants) or one variant of it.
pages = $(foreach each,$(call variants,$1),$(BUILD)/$(model_of)/$(CHIP)/$(model_of)_$(each).report.html)
%.report: $$(call pages,$$*) FORCE
	$(if $(call model_of,$*),,$(error there is no $* to report on; make list shows what can be built))
	@:$(if $(JSON),,$(foreach each,$(call pages,$*),$(info → $(each))))
	$(if $(JSON),@cat $(patsubst %.html,'%.json',$(call pages,$*)))

# compare: two builds side by side, from the facts of both.
compared = $(foreach each,$(call given,A) $(call given,B),$(BUILD)/$(call model_of,$(each))/$(CHIP)/$(each).report.json)
not_one  = $(foreach each,$(call given,A) $(call given,B),$(if $(and $(call model_of,$(each)),$(filter $(BUILT),$(call variant_of,$(each)))),,$(each)))
compare_wrong = $(or $(if $(filter-out 2,$(words $(call given,A) $(call given,B))),which two? make compare A=$(firstword $(MODELS))_int8 B=$(firstword $(MODELS))_bf16), \
	$(if $(strip $(not_one)),there is no $(firstword $(not_one)) for $(CHIP) to compare; make list shows what there is))
.PHONY: compare
compare: $$(if $$(compare_wrong),,$$(compared)) | $$(if $$(compare_wrong),,$(REPORT) $(BUILD)/compare/)
	$(if $(compare_wrong),@echo >&2 'tpumake: $(compare_wrong)'; exit 2)
	@'$(REPORT_VENV)/bin/python' scripts/compare_reports.py $(patsubst %,'%',$(compared)) '$(BUILD)/compare/$(call given,A)_$(call given,B).html'
