# What every stage's rule needs: how it is run, with what code, and its parameters as a file.

m = $(firstword $(subst /, ,$*))
# The variant, where the target's name ends in one: build/$m/<chip>/$m_$v.cvimodel
v = $(patsubst $m_%,%,$(notdir $*))
# One place for what all stages need: a private folder, log, progress, checks, atomic results.
# It needs no environment; what it runs does, and only where it has to run. $(call stage,STAGE,LABEL,NAME): LABEL
# is the second column's text, if it isn't the stage's name; NAME the first one's, if that isn't the model's.
stage = @$(if $(JSON),>&2) $(HOST_PYTHON) -S scripts/run_stage.py --build '$(BUILD)' --make '$(MAKE_COMMAND)' --model='$(or $(value 3),$m)' \
	--log '$(@:.key=.log)' $(foreach each,$($1_made),--out '$(each)') --stage $1 $(if $(value 2),--label '$2')
# Checks make nothing but their record.
stanza_made :=
tflite_made :=
caffe_made  :=
# A record is there as a whole or not at all; Make would remove one that is done when it is interrupted. Patterns as
# the rules have them.
.PRECIOUS: $(BUILD)/%.key $(patsubst %,$(BUILD)/\%.%.key,accuracy contract emulated eval_lowered eval_model layers lower lowered page report) \
	$(patsubst %,$(BUILD)/\%/$(CHIP)/logs/%.key,float goal qtable) $(patsubst %,$(BUILD)/\%/logs/%.key,caffe calibrate downgrade \
	eval_cut eval_float eval_onnx evalset float import onnx picture stanza tflite transform) $(BUILD)/datasets/logs/%.key
# A record is no better than what it is of.
lost = $(if $(filter-out $(wildcard $($1_made)),$($1_made)),FORCE)
# The environment's own is the same Python, and starts at once where python3 is a script that looks for it.
HOST_PYTHON = $(or $(wildcard $(VENV)/bin/python),$(PYTHON))
# Our own helpers are started at the top, and write into {work}, the private folder.
helper = --needs '$(HELPERS)' $(call code,$(CODE_$1)) --top -- '$(VENV)/bin/python' scripts/$1.py
# Our own program in the toolchain's Python, linked into the private folder.
inside = --needs '$(TOOLS)' $(call code,$(CODE_$1)) --in $1.py=scripts/toolchain/$1.py -- '$(TOOLCHAIN_HERE)/run' python3 $1.py
# $(call tool_with,TOOL,EXTRA): one of tpu_mlir's, with the packages of an extra if one is named.
tool      = $(call tool_with,$1,)
tool_with = --needs '$(TOOLS)' $(if $2,--needs '$(call extra_ready,$2)') $(call code,$(CODE_$1) $(call extra_code,$2)) \
	--env SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) \
	$(if $(filter 0,$(REPRODUCIBLE)),--env REPRODUCIBLE=0,--same-addresses) -- '$(TOOLCHAIN_HERE)/run' $(or $(if $2,with_extra $2),$(beside)) $1.py
# What may run with some of its steps beside others; that is made for version 1.7, and held against it alone.
BESIDE_1.7 := model_transform model_deploy
beside = $(if $(filter $1,$(BESIDE_$(TPU_MLIR_VERSION))),side_by_side)
extra_code = $(if $1,requirements/extra-$1.txt scripts/toolchain_bin/with_extra \
	$(sort $(wildcard $(addprefix scripts/stand_ins/$1/,*.py */*.py))))
# $(call extra,FRAMEWORK): an importer of ours, in the environment of its framework.
extra     = $(if $(call extra_own,$1),--env PYTHON='$(call extra_own,$1)',--needs '$(call extra_ready,$1)') \
	$(call code,$(CODE_import_$1)) --top -- '$(or $(call extra_own,$1),$(EXTRAS)/$1/run)' scripts/import_$1.py
extra_own = $(if $(filter torch,$1),$(TORCH_PYTHON))
# What does a stage's work is part of its key, by content.
code = $(foreach each,$1,--code $(each))
library = $(addprefix scripts/tpumake/,$(addsuffix .py,$1))
LOCK := requirements/helpers.txt
CODE_preflight := $(LOCK) scripts/preflight.py schemas/stanza.schema.json $(wildcard devices/*.json scripts/tpumake/preflight/*.py \
	scripts/tpumake/preflight/*.json scripts/tpumake/downgrade/*.py) \
	$(call library,onnx_io detection_head devices profiles static_shapes labels pictures samples shapes npz amounts address)
CODE_normalize_dataset := $(LOCK) scripts/normalize_dataset.py $(call library,datasets lists pictures samples shapes npz)
CODE_check_tflite := scripts/check_tflite.py $(call library,tflite shapes)
CODE_check_caffe := $(LOCK) scripts/check_caffe.py $(call library,caffe shapes)
CODE_onnx_downgrade := $(LOCK) scripts/onnx_downgrade.py $(call library,amounts bounded_run memory onnx_io detection_head devices \
	profiles static_shapes samples shapes npz pictures) $(wildcard scripts/tpumake/downgrade/*.py) $(addprefix devices/,$(addsuffix .json,$(DEVICES)))
CODE_run_calibration := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt $(call library,settling cvimodel bmodel)
CALIBRATE_PARTS := $(addprefix scripts/toolchain/calibrate_,$(addsuffix .py,kept network processes searches sums tuning worker))
CODE_calibrate := $(CODE_run_calibration) scripts/toolchain/calibrate.py $(CALIBRATE_PARTS)
CODE_merge_qtable := $(LOCK) scripts/merge_qtable.py
CODE_run_qtable := $(CODE_run_calibration) scripts/toolchain_bin/dot
CODE_model_transform := $(CODE_run_calibration) $(LOCK) scripts/toolchain_bin/npz_tool.py scripts/npz_compare.py \
	$(call library,npz npz_compare similarity) $(if $(BESIDE_$(TPU_MLIR_VERSION)),scripts/toolchain_bin/side_by_side scripts/toolchain/run_tool.py)
CODE_model_deploy := $(CODE_model_transform)
CODE_letterbox_picture := $(LOCK) scripts/letterbox_picture.py $(call library,letterbox network_input pictures)
CODE_run_onnx := $(LOCK) scripts/run_onnx.py $(call library,amounts bounded_run memory detections float_onnx labels network_input onnx_io pictures)
CODE_check_contract := $(LOCK) scripts/check_contract.py $(call library,contract decoders profiles side_car labels model_info \
	cvimodel_reader bmodel_reader flat_tables keys)
CODE_prepare_evaluation := $(LOCK) scripts/prepare_evaluation.py scripts/tpumake/evaluation/pictures.py \
	scripts/tpumake/evaluation/truth.py $(call library,labels pictures)
CODE_run_evaluation := $(LOCK) requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/run_evaluation.py scripts/toolchain/run_network.py \
	$(addprefix scripts/tpumake/evaluation/,found.py pictures.py running.py truth.py) \
	$(call library,amounts bounded_run detections float_onnx letterbox memory network_input npz onnx_io pictures raw_outputs)
CODE_search_qtable := $(LOCK) requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/search_qtable.py \
	$(addprefix scripts/toolchain/,try_tables.py lower_network.py run_network.py) $(addprefix scripts/tpumake/mixed/,search.py trials.py document.py) \
	$(addprefix scripts/tpumake/evaluation/,document.py found.py likeness.py measures.py pictures.py running.py truth.py) \
	$(call library,amounts bounded_run columns detections float_onnx labels letterbox memory network_input npz onnx_io pictures raw_outputs)
CODE_evaluate := $(LOCK) scripts/evaluate.py $(addprefix scripts/tpumake/evaluation/,document.py found.py layers.py likeness.py \
	measures.py pictures.py table.py truth.py) $(call library,columns detections labels letterbox network_input npz pictures raw_outputs)
CODE_lower_network := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/toolchain/lower_network.py
CODE_run_network := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/toolchain/run_network.py
CODE_measure_layers := $(CODE_run_network) scripts/toolchain/measure_layers.py
CODE_collect_report = $(LOCK) scripts/collect_report.py $(wildcard devices/*.json scripts/tpumake/report/*.py) $(call library,amounts \
	contract decoders documents profiles side_car labels model_info cvimodel_reader bmodel_reader flat_tables keys pictures)
CODE_render_report = requirements/report.txt scripts/render_report.py $(call library,columns documents) \
	$(wildcard $(addprefix scripts/tpumake/page/*.,py css js jinja))
CODE_import_torch := requirements/extra-torch.txt scripts/import_torch.py $(call library,importing shapes)
CODE_import_tensorflow := requirements/extra-tensorflow.txt scripts/import_tensorflow.py $(call library,importing shapes)
CODE_import_paddle := requirements/extra-paddle.txt scripts/import_paddle.py $(call library,importing shapes)

# Writes a file without a process, and nothing under `make -n`.
write = $(if $(findstring n,$(firstword -$(MAKEFLAGS))),,$(file >$1,$2))
# It is a prerequisite as a copy, build/.code/<helper>.text, which Make writes anew, without a process, where a file of
# it is newer than the last look and says something else: so a fresh checkout starts no stage for its code's times.
code_text = $(foreach each,$(CODE_$*),$(each) $(file <$(each)))
$(BUILD)/.code/%.text: $(BUILD)/.code/%.looked ;+
$(BUILD)/.code/%.looked: $$(CODE_$$*) $$(if $$(wildcard $(BUILD)/.code/$$*.text),,FORCE) | $(BUILD)/.code/
	$(if $(call differs,$(@:looked=text),$(code_text)),$(call write,$(@:looked=text),$(code_text)))$(call write,$@,)

# A stage's parameters, which files it takes and which code does its work, are a file that it depends on. That is written only
# when they differ from what it holds, so changed parameters are newer than what others made.
parameters = $(strip $(if $(filter datasets,$m),$(call set_flags,$(call set_user,$(@F:.parameters=))) $(CODE_normalize_dataset),$(call $(@F:.parameters=)_parameters,$m)))
$(BUILD)/%.parameters: $$(call differs,$$@,$$(parameters)) | $$(@D)/
	@:$(call write,$@,$(parameters))
