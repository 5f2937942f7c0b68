# tpumake: from a trained network to a model that runs on a Sophgo TPU.
#
#   models/<m>.onnx
#     │ downgrade     opset ≤ 17, IR 8, head cut at the outputs that the device wants
#   build/<m>/<m>_v8.onnx
#     │ transform     compared with the ONNX in float, tensor by tensor
#   build/<m>/<m>.mlir
#     │ calibrate  ◄─ build/datasets/<d> ◄─ dataset ◄─ datasets/<d>
#   build/<m>/<m>_calib_table
#     │ qtable        for mixed precision: which layers INT8 would spoil
#   build/<m>/<chip>/<m>_qtable
#     │ deploy        quantised, compared with the float network, run on the emulator
#   build/<m>/<chip>/<m>_<variant>.cvimodel (.bmodel for a BM chip)
#
# A model is a stanza in models.mk. `make help` tells the rest. What rules use is in mk/, a file for each matter.

# The default target of this Makefile is...
help:

# Every knob can be given on the command line or in the environment.
#
# STANZAS: the file of stanzas. PATHS_FROM: the folder that it, and all paths in it, are seen from, if not from here:
# that of a project of yours which has stanzas, networks and pictures, and tpumake beside it.
STANZAS ?= models.mk
PATHS_FROM ?=
# CHIP: the TPU to build for.
CHIP ?= cv181x
# DEVICE: whose software is to understand the model: a name of devices/*.json.
DEVICE ?= recamera
# BUILD: the folder for everything that is built. Relative, or without spaces.
BUILD ?= build
# VALIDATE: 0 skips the comparisons with the float network and the run on the emulator.
VALIDATE ?= 1
# SOURCE_DATE_EPOCH: the time (seconds since 1970) that results carry: by default that of 1980-01-01,
# which NumPy's files have anyway.
SOURCE_DATE_EPOCH ?= 315532800
# V: 1 shows the tools' whole output.
V ?= 0
# WHY: 1 says for each stage that Make looks into why it runs, or that it doesn't.
WHY ?= 0
# CACHE_DIR: where results of stages are kept for all checkouts; CACHE: 0 does without;
# CACHE_MAX: how large it may become.
CACHE_DIR ?= $(or $(if $(filter environment,$(origin XDG_CACHE_HOME)),$(XDG_CACHE_HOME)),$(HOME)/.cache)/tpumake
CACHE ?= 1
CACHE_MAX ?= 5G
# CACHE_REMOTE: a cache that several machines share, http://host/path, https://host/path or s3://bucket/prefix;
# CACHE_REMOTE_MODE: read-only, or read-write to keep there what is built here; CACHE_REMOTE_TIMEOUT: seconds that it may
# take to answer.
CACHE_REMOTE ?=
CACHE_REMOTE_MODE ?= read-only
CACHE_REMOTE_TIMEOUT ?= 10
# MEMORY: what all stages that run at once may take, by default most of what there is.
MEMORY ?=
# RUN: what starts the heavy stages elsewhere, such as a cluster's scheduler: srun -c1 --mem=3G
RUN ?=
# REPRODUCIBLE: 0 goes on where the kernel can't give a tool the same addresses each time, and its
# results are other bytes each time.
REPRODUCIBLE ?= 1
# JSON: 1 has .key, .check, .info, .outputs, .detect, .layers, .eval, .report, .reproduce, doctor, info, list and all print JSON, and nothing else on
# standard output.
JSON ?=
# LIST: a file with one target a line, that `make all` is to build instead; FILE: what `make info` tells of.
LIST ?=
FILE ?=
# TPU_MLIR_VERSION: which toolchain; requirements/tpu_mlir-<version>.txt is its lock.
TPU_MLIR_VERSION ?= 1.7
# CALIBRATOR: tpumake calibrates in several processes, sample by sample; tpu_mlir with tpu_mlir's own tool, which
# makes the same table. What the first can't do is left to the second anyway.
CALIBRATOR ?= tpumake
# PYTHON: the host's Python, 3.10 or newer; PYTHON310: a CPython 3.10 for the toolchain, if you
# would rather have yours than the one that is found or made.
PYTHON ?= python3
PYTHON310 ?=
# VENV, TOOLCHAIN: where the two environments are.
VENV ?= .venv
TOOLCHAIN ?= .toolchain
# EXTRAS: where the packages are that only networks of other frameworks need; EXTRA: those that
# `make setup` is to install. A build installs what it needs.
EXTRAS ?= .extras
EXTRA ?=
# TORCH_PYTHON: your own Python that has torch, onnx and onnxruntime (and ultralytics), to load
# PyTorch's networks with instead of the extra.
TORCH_PYTHON ?=

KNOBS := STANZAS PATHS_FROM CHIP DEVICE BUILD VALIDATE SOURCE_DATE_EPOCH V WHY CACHE_DIR CACHE CACHE_MAX \
	CACHE_REMOTE CACHE_REMOTE_MODE CACHE_REMOTE_TIMEOUT MEMORY RUN REPRODUCIBLE \
	TPU_MLIR_VERSION CALIBRATOR PYTHON PYTHON310 VENV TOOLCHAIN EXTRAS EXTRA TORCH_PYTHON

# ---------------------------------------------------------------------------------------------
# Ground rules

ifeq ($(filter grouped-target,$(.FEATURES)),)
$(error tpumake needs GNU Make 4.3 or newer, this is $(MAKE_VERSION); install one and call it by its name)
endif

MAKEFLAGS += --no-builtin-rules --no-builtin-variables
SHELL := /bin/sh
.SUFFIXES:
.DELETE_ON_ERROR:
# What a stage makes is kept, not taken for a by-product of the next one.
.SECONDARY:
.SECONDEXPANSION:
.PHONY: FORCE
export V WHY JSON CACHE_DIR CACHE CACHE_MAX CACHE_REMOTE CACHE_REMOTE_MODE CACHE_REMOTE_TIMEOUT MEMORY RUN VENV PYTHON310 EXTRAS
# Stages start too often to compile their Python each time, which some containers ask for.
export PYTHONDONTWRITEBYTECODE :=

empty :=
space := $(empty) $(empty)
comma := ,
define newline


endef

include mk/functions.mk # how rules get at stanzas
include mk/stanza.mk    # what a stanza may assign, with its default
include mk/sources.mk   # where networks and samples come from
include mk/chips.mk     # what chips, toolchains and devices can
include mk/setup.mk     # the environments
include mk/stage.mk     # what every stage needs: its runner, its code, its parameters
include mk/check.mk     # what is known beforehand

# A folder is made when something needs it.
%/:
	@mkdir -p '$@'

# What has no rule and is not there. `sources`, below, makes Make name the missing file itself.
.DEFAULT:
	@echo >&2 $(call shell_word,tpumake: there is no $@$(if $(named_by),$(comma) which $(named_by) names); make list shows what can be built)
	@exit 2
named_by = $(if $(filter $@,$(image)),IMAGE)$(strip $(foreach each,$(MODELS),$(foreach name,$(FILES),$(if \
	$(filter $@,$(call file_of,$(each),$(name))),$(each)_$(name)))))
# The variables that name one file or folder of the user's, and what one names.
FILES   = $(SOURCES) CAFFEMODEL TEST_INPUT QTABLE LABELS EVAL_DATASET
file_of = $(filter-out none,$(call path,$1,$2))

# ---------------------------------------------------------------------------------------------
# The pipeline. In each rule $m is the model, taken from the target's name: build/$m/…
#
# Each stage is two rules. What it makes (<stage>_made, of which Make asks for one or all) comes of its record,
# logs/<label>.key, beside its log; the record comes of the stage's inputs, and is what the recipe makes. So results
# keep their time while they stay the same bytes, and what follows is not looked into; a touched input dates the
# record alone. `;+` is a recipe without a command, of which also `make -n` knows that it changes nothing.

# check: all that can be known before the first tool runs: the stanza, the network, some of the
# pictures. Things of the machine are no part of a key; `make X.check` looks at those, too.
$(BUILD)/%/logs/stanza.key: $(BUILD)/%/stanza.parameters $(BUILD)/.code/preflight.text $$(call as_prerequisite,$$(call one_file,$$*)) \
		$$(call looked_into,$$*,3) $$(if $$(call path,$$*,LABELS),$$(call as_prerequisite,$$(call file_of,$$*,LABELS))) \
		$$(call validating,$$(if $$(call get,$$*,TEST_INPUT),$$(call test_prerequisite,$$*)))
	$(call stage,stanza,check) --in '$<' \
	  $(call in_numbered,network,$(call one_file,$*)) $(call in_numbered,sample,$(call looked_into,$*,3)) \
	  $(call in_numbered,labels,$(call file_of,$*,LABELS)) \
	  $(call validating,$(if $(call get,$*,TEST_INPUT),$(call in_numbered,test,$(call test_files,$*)))) \
	  $(call helper,preflight) '$<' $(call samples_of,$*,3)
in_numbered = $(foreach each,$(join $(patsubst %,$1%=,$(wordlist 1,$(words $2),$(NUMBERS))),$2),--in $(call quoted,$(each)))
samples_of = $(foreach each,$(call looked_into,$1,$2),--sample $(call quoted,$(each)))

# dataset: pictures of any kind, or tensors, in the form and number that the calibration takes. Of a
# folder, or DATASET's list, some are chosen; of the other two lists the first ones are taken, in their order.
# $* is the set's name.
dataset_made = $(BUILD)/datasets/$*
$(BUILD)/datasets/%/manifest.json: $(BUILD)/datasets/logs/%.key ;+
$(BUILD)/datasets/logs/%.key: $(BUILD)/datasets/%.parameters $(BUILD)/.code/normalize_dataset.text \
		$$(call pictures,$$(call set_path,$$(call set_user,$$*))) $$(call lost,dataset)
	$(call stage,dataset,,$*) --in source=$(call quoted,$(call set_path,$(call set_user,$*))) --lists source \
	  $(call helper,normalize_dataset) $(call set_flags,$(call set_user,$*)) '{work}/$*' --progress

# import: a network of another framework, as ONNX. Each framework is an environment of its own.
import_flags = $(call option,$1,INPUT_SHAPES,--input-shapes) $(if $(filter PT,$(call kind,$1)),$(call flag,$1,ALLOW_PICKLE,--allow-pickle))
import_parameters = $(call source,$1) $(import_flags) $(CODE_import_$(call framework,$1)) $(call extra_own,$(call framework,$1))
# SavedModels and Paddle's networks are folders.
in_folder = $(if $(filter SAVEDMODEL PADDLE,$(call kind,$1)),$(call pictures,$(call source,$1)))
import_made = $(BUILD)/$m/$m_imported.onnx
$(BUILD)/%_imported.onnx: $(BUILD)/$$m/logs/import.key ;+
$(BUILD)/%/logs/import.key: $$(call as_prerequisite,$$(call source,$$m)) $$(call in_folder,$$m) $(BUILD)/$$m/import.parameters \
		$(BUILD)/.code/import_$$(call framework,$$m).text $$(call lost,import) | $(BUILD)/$$m/logs/stanza.key
	$(call stage,import) --in source=$(call quoted,$(call source,$m)) \
	  $(call extra,$(call framework,$m)) $(call quoted,$(call source,$m)) '{work}/$(notdir $(import_made))' $(call import_flags,$m)

# downgrade: an ONNX that tpu_mlir's older onnx reads, with its head cut where the device's begins.
downgrade_flags = --verify $(if $(filter none,$(call get,$1,OUTPUTS)),,$(call option,$1,OUTPUTS,--outputs)) \
	$(if $(filter auto,$(call get,$1,OUTPUTS)),$(call option,$1,DEVICE,--device)) $(call option,$1,INPUT_SHAPES,--input-shapes)
downgrade_parameters = $(call onnx,$1) $(downgrade_flags) $(CODE_onnx_downgrade)
downgrade_made = $(BUILD)/$m/$m_v8.onnx
$(BUILD)/%_v8.onnx: $(BUILD)/$$m/logs/downgrade.key ;+
$(BUILD)/%/logs/downgrade.key: $$(call as_prerequisite,$$(call onnx,$$m)) $(BUILD)/$$m/downgrade.parameters \
		$(BUILD)/.code/onnx_downgrade.text $$(call lost,downgrade) | $(BUILD)/$$m/logs/stanza.key
	$(call stage,downgrade) --in source=$(call quoted,$(call onnx,$m)) \
	  $(call helper,onnx_downgrade) $(call quoted,$(call onnx,$m)) '{work}/$(notdir $(downgrade_made))' $(call downgrade_flags,$m)

# tflite, caffe: what tpu_mlir, or Caffe in it, stumbles over or passes over, told before.
CHECK_TFLITE   := tflite
CHECK_PROTOTXT := caffe
CHECK_TORCHSCRIPT :=
check_of    = $(foreach each,$(direct),$(CHECK_$(each)))
check_flags = $(call option,$1,INPUT_SHAPES,--input-shapes) --variable $1
tflite_parameters = $(call source,$1) $(check_flags) $(CODE_check_tflite)
caffe_parameters  = $(call source,$1) $(call path,$1,CAFFEMODEL) $(check_flags) $(CODE_check_caffe)
$(BUILD)/%/logs/tflite.key: $$(call as_prerequisite,$$(call source,$$*)) $(BUILD)/%/tflite.parameters $(BUILD)/.code/check_tflite.text | $(BUILD)/%/logs/stanza.key
	$(call stage,tflite) --in source=$(call quoted,$(call source,$*)) \
	  $(call helper,check_tflite) $(call check_flags,$*) $(call quoted,$(call source,$*))
$(BUILD)/%/logs/caffe.key: $$(call as_prerequisite,$$(call source,$$*) $$(call path,$$*,CAFFEMODEL)) $(BUILD)/%/caffe.parameters \
		$(BUILD)/.code/check_caffe.text | $(BUILD)/%/logs/stanza.key
	$(call stage,caffe) --in prototxt=$(call quoted,$(call source,$*)) \
	  --in caffemodel=$(call quoted,$(call path,$*,CAFFEMODEL)) $(call helper,check_caffe) $(call check_flags,$*) \
	  $(call quoted,$(call source,$*)) $(call quoted,$(call path,$*,CAFFEMODEL))

# transform: to tpu_mlir's own form, run beside the ONNX on a test picture. The weights are a file
# that the tools look for where they are started, under the name that transform gave it.
# What it reads, as NAME=FILE, NAME being its name in the stage's folder.
definition = $(if $(call direct,$1),$(definition_$(call kind,$1)),$1_v8.onnx=$(BUILD)/$1/$1_v8.onnx)
definition_TFLITE      = $1.tflite=$(call source,$1)
definition_PROTOTXT    = $1.prototxt=$(call source,$1) $1.caffemodel=$(call path,$1,CAFFEMODEL)
definition_TORCHSCRIPT = $1.pt=$(call source,$1)
# The extra that tpu_mlir's own reader of that kind imports.
READER_TORCHSCRIPT := torch
READER_TFLITE      := tflite
READER_PROTOTXT    := caffe
reader = $(if $(call direct,$1),$(READER_$(call kind,$1)))
definition_files = $(foreach each,$(definition),$(patsubst $(firstword $(subst =, ,$(each)))=%,%,$(each)))
definition_names = $(foreach each,$(definition),$(firstword $(subst =, ,$(each))))
definition_flags = $(addprefix --model_def ,$(firstword $(definition_names))) $(addprefix --model_data ,$(word 2,$(definition_names)))
TRANSFORM_OPTIONS := INPUT_SHAPES MEAN SCALE PIXEL_FORMAT
TRANSFORM_UNUSUAL := CHANNEL_FORMAT RESIZE_DIMS KEEP_RATIO_MODE PAD_VALUE PAD_TYPE WHITE_LEVEL BLACK_LEVEL PREPROCESS_LIST \
	INPUT_TYPES ONNX_SIM ADD_POSTPROCESS
transform_flags = $(definition_flags) $(call options,$1,$(TRANSFORM_OPTIONS)) $(call unusual,$1,$(TRANSFORM_UNUSUAL)) \
	$(call switches,$1,KEEP_ASPECT_RATIO) $(call validating, --test_input $(call test_names,$1) \
	--test_result $1_top_outputs.npz $(call option,$1,TRANSFORM_TOLERANCE,--tolerance) $(call unusual,$1,EXCEPTS))
transform_parameters = $(definition_files) $(transform_flags) $(call validating,$(test_files)) $(CODE_model_transform) $(call extra_code,$(call reader,$1))
# What models are compared on: TEST_INPUT, files with commas between, or the set's first sample; for networks
# of several inputs a file for each, or one .npz for all. The tools look at suffixes, OpenCV only at a
# picture's content: hence one name for all kinds of them.
test_files = $(or $(foreach each,$(subst $(comma), ,$(subst $(space),?,$(call get,$1,TEST_INPUT))),$(call at_home,$(call placed,$(each)))),$(patsubst %,$(BUILD)/datasets/$(dataset)/Calibration%.*,$(call files_of_sample,$1)))
test_kind  = $(or $(filter .npz .npy,$(if $(call get,$1,TEST_INPUT),$(suffix $(firstword $(test_files))),$(tensors))),.jpg)
test_named = $(join $(patsubst %,$1_test%$(test_kind)=,$(if $(word 2,$(test_files)),$(wordlist 1,$(words $(test_files)),$(NUMBERS)))),$(if $(word 2,$(test_files)),,$1_test$(test_kind)=)$(test_files))
test_names = $(subst $(space),$(comma),$(strip $(foreach each,$(test_named),$(firstword $(subst =, ,$(each))))))
test_input = $(call validating,$(foreach each,$(test_named),--in $(call quoted,$(each))))
test_prerequisite = $(call validating,$(or $(if $(call get,$1,TEST_INPUT),$(call as_prerequisite,$(test_files))),$(call calibration_set,$1)))
# One set has all samples; where a sample is several files, they are Calibration1_1.jpg, Calibration1_2.jpg, ….
files_of_sample = $(if $(filter-out 1,$(inputs)),$(if $(filter .npz,$(tensors)),1,$(addprefix 1_,$(wordlist 1,$(inputs),$(NUMBERS)))),1)
inputs  = $(or $(words $(subst ]$(comma),] ,$(subst $(space),,$(call get,$1,INPUT_SHAPES)))),1)
NUMBERS := 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
transform_made = $(addprefix $(BUILD)/$m/$m,.mlir _top_f32_all_weight.npz $(call validating,_in_f32.npz))
$(BUILD)/%.mlir: $(BUILD)/$$m/logs/transform.key ;+
$(BUILD)/%_top_f32_all_weight.npz: $(BUILD)/$$m/logs/transform.key ;+
$(BUILD)/%_in_f32.npz: $(BUILD)/$$m/logs/transform.key ;+
$(BUILD)/%/logs/transform.key: $$(call as_prerequisite,$$(call definition_files,$$m)) \
		$(BUILD)/$$m/transform.parameters $$(call test_prerequisite,$$m) $(BUILD)/.code/model_transform.text $$(call extra_code,$$(call reader,$$m)) \
		$$(call lost,transform) | $(BUILD)/$$m/logs/stanza.key $$(addprefix $(BUILD)/$$m/logs/,$$(addsuffix .key,$$(call check_of,$$m)))
	$(call stage,transform) $(foreach each,$(call definition,$m),--in $(call quoted,$(each))) $(call test_input,$m) \
	  --by-product '$(BUILD)/$m/$m_top_outputs.npz' \
	  $(call tool_with,model_transform,$(call reader,$m)) --model_name $m --mlir $m.mlir $(call transform_flags,$m)

# calibrate: the range of every tensor over the pictures.
CALIBRATE_OPTIONS := INPUT_NUM TUNE_NUM HISTOGRAM_BIN_NUM
calibrate_flags = $(sample_flags) $(if $(tune),--tune_list tune.txt) $(call options,$1,$(CALIBRATE_OPTIONS)) \
	$(call option,$1,CALIBRATION_DEBUG_CMD,--debug_cmd)
calibrate_parameters = $(calibrate_flags) $(SOURCE_DATE_EPOCH) $(calibration_set) $(tune_set) $(CODE_$(calibrator))
# Ours is held against the tool of version 1.7 alone.
calibrator = $(if $(filter 1.7.tpumake,$(TPU_MLIR_VERSION).$(call get,$1,CALIBRATOR)),calibrate,run_calibration)
calibrate_tool = $(if $(filter calibrate,$(calibrator)),--env SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) \
	$(foreach each,$(CALIBRATE_PARTS),--in '$(notdir $(each))=$(each)') $(call inside,calibrate),$(call tool,run_calibration))
# A list where the order counts or a sample is several files; the stage writes it.
sample_flags = $(if $(or $(filter DATA_LIST,$(samples)),$(filter-out 1,$(files_of_sample))),--data_list dataset.txt,--dataset dataset)
tune_set = $(patsubst %,$(BUILD)/datasets/%/manifest.json,$(tune))
calibration_set = $(if $(call get,$1,$(samples)),$(BUILD)/datasets/$(call dataset,$1)/manifest.json,without_pictures/$1)
without_pictures/%: FORCE
	@echo >&2 'tpumake: $*_DATASET is not set; $*_TEST_INPUT, one picture, is enough where nothing is calibrated'
	@exit 2
calibrate_made = $(BUILD)/$m/$m_calib_table
$(BUILD)/%_calib_table: $(BUILD)/$$m/logs/calibrate.key ;+
$(BUILD)/%/logs/calibrate.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz $(BUILD)/$$m/calibrate.parameters \
		$$(call calibration_set,$$m) $$(call tune_set,$$m) $(BUILD)/.code/$$(call calibrator,$$m).text $$(call lost,calibrate)
	$(call stage,calibrate) --in '$<' --in '$(word 2,$^)' \
	  --in dataset='$(BUILD)/datasets/$(call dataset,$m)' $(patsubst %/manifest.json,--in tune='%',$(call tune_set,$m)) \
	  $(call calibrate_tool,$m) $m.mlir -o $m_calib_table $(call calibrate_flags,$m) \
	  $(if $(filter calibrate,$(call calibrator,$m)),--keep '../../$m/calibrated')

# qtable: the layers that stay in float where INT8 alone is not good enough. Its search asks the chip.
QTABLE_OPTIONS := EXPECTED_COS MIN_LAYER_COS FP_TYPE GLOBAL_COMPARE_LAYERS
qtable_flags = $(sample_flags) --processor $(CHIP) --input_num $(call get,$1,QTABLE_INPUT_NUM) $(call options,$1,$(QTABLE_OPTIONS))
qtable_parameters = $(qtable_flags) $(SOURCE_DATE_EPOCH) $(calibration_set) $(CODE_run_qtable)
qtable_made = $(addprefix $(BUILD)/$m/$(CHIP)/$m_,qtable loss_table.txt)
$(BUILD)/%_qtable: $(BUILD)/$$m/$(CHIP)/logs/qtable.key ;+
$(BUILD)/%_loss_table.txt: $(BUILD)/$$m/$(CHIP)/logs/qtable.key ;+
$(BUILD)/%/$(CHIP)/logs/qtable.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz \
		$(BUILD)/$$m/$$m_calib_table $(BUILD)/$$m/$(CHIP)/qtable.parameters $$(call calibration_set,$$m) \
		$(BUILD)/.code/run_qtable.text $$(call lost,qtable)
	$(call stage,qtable) --in '$<' --in '$(word 2,$^)' --in '$(word 3,$^)' \
	  --in dataset='$(BUILD)/datasets/$(call dataset,$m)' \
	  $(call tool,run_qtable) $m.mlir --calibration_table $m_calib_table \
	  -o $m_qtable --loss_table $m_loss_table.txt $(call qtable_flags,$m)

# float: a table of the stanza's own in place of that one, none at all, or more layers for it.
FLOAT_bm1684x := F16
FLOAT_bm1684  := F32
float_mode  = $(or $(filter-out auto,$(call get,$1,FP_TYPE)),$(FLOAT_$(CHIP)),BF16)
float_table = $(or $(call file_of,$1,QTABLE),$(if $(call get,$1,QTABLE),,$(searched)))
float_flags = --mode $(float_mode) $(call option,$1,FLOAT_LAYERS,--float) $(if $(float_table),--table $(call quoted,$(float_table)))
float_parameters = $(float_flags) $(CODE_merge_qtable)
float_made = $(BUILD)/$m/$(CHIP)/$m_float_table
$(BUILD)/%_float_table: $(BUILD)/$$m/$(CHIP)/logs/float.key ;+
$(BUILD)/%/$(CHIP)/logs/float.key: $(BUILD)/$$m/$$m_calib_table $$(call as_prerequisite,$$(call float_table,$$m)) \
		$(BUILD)/$$m/$(CHIP)/float.parameters $(BUILD)/.code/merge_qtable.text $$(call lost,float)
	$(call stage,float) --in '$<' $(if $(call float_table,$m),--in table=$(call quoted,$(call float_table,$m))) \
	  $(call helper,merge_qtable) '$<' '{work}/$(notdir $(float_made))' $(call float_flags,$m)
searched = $(BUILD)/$1/$(CHIP)/$1_$(if $(call get,$1,QTABLE_GOAL),goal_table,qtable)
qtable   = $(if $(call get,$1,QTABLE)$(call get,$1,FLOAT_LAYERS),$(BUILD)/$1/$(CHIP)/$1_float_table,$(searched))

# deploy: quantise, compile for the chip, compare with the float network, run on the emulator.
# A list of inputs or outputs restricts its switch, and does nothing without it: so it stands for both.
DEPLOY_SWITCHES := OP_DIVIDE IGNORE_F16_OVERFLOW DYNAMIC DISABLE_LAYER_GROUP
DEPLOY_UNUSUAL  := QUANT_INPUT_LIST QUANT_OUTPUT_LIST OPT ADDR_MODE NUM_CORE NUM_DEVICE GROUP_BY_CORES COMPRESS_MODE MODEL_VERSION
deploy_flags = --processor $(CHIP) --quantize $(if $(calibrated),INT8,$(call upper,$2)) $(if $(filter int8_asym,$2),--asymmetric) \
	$(if $(calibrated),--calibration_table $1_calib_table) $(if $(filter mix,$2),--quantize_table $1_qtable) \
	$(call switch_or_list,$1,QUANT_INPUT) $(call switch_or_list,$1,QUANT_OUTPUT) \
	$(call switches,$1,$(DEPLOY_SWITCHES)) $(call unusual,$1,$(DEPLOY_UNUSUAL)) \
	$(if $(fused),--fuse_preprocess $(call option,$1,CUSTOMIZATION_FORMAT,--customization_format) \
	$(call switches,$1,ALIGNED_INPUT)) \
	$(call validating,--test_input $(if $(fused),$(test_names),$1_test.npz) \
	--test_reference $1_top_outputs.npz $(call option,$1,$(call upper,$2)_TOLERANCE,--tolerance) \
	$(call unusual,$1,EXCEPTS) $(call switches,$1,COMPARE_ALL SKIP_VALIDATION))
switch_or_list = $(if $(or $(filter 1,$(call get,$1,$2)),$(call get,$1,$2_LIST)),--$(call lower,$2))
# tpu_mlir has a fixed tolerance for the emulator against the quantised network, a lower one for mix;
# here it is a variable.
model_tolerance = $(if $(filter mix$(origin $1_MODEL_TOLERANCE),$2undefined),0.99$(comma)0.85,$(call get,$1,MODEL_TOLERANCE))
deploy_parameters = $(deploy_flags) $(filter-out %_calib_table,$(calibrated)) $(SOURCE_DATE_EPOCH) $(call validating,$(test_files) $(model_tolerance)) $(CODE_model_deploy) $(referring) $(call extra_code,$(referrer))
# A network that comes quantised is not calibrated, and stays INT8 whatever tpu_mlir is told.
already    = $(filter TFLITE,$(direct))
calibrated = $(if $(already),,$(strip $(if $(filter int8 int8_asym mix,$2),$(BUILD)/$1/$1_calib_table) $(if $(filter mix,$2),$(qtable))))
tables = $(foreach each,$(calibrated),--in '$(subst _goal_table,_qtable,$(subst _float_table,_qtable,$(notdir $(each))))=$(each)')
# tpu_mlir runs a quantised network only when it is compiled; what that is compared with comes from
# the network itself.
referring  = $(if $(already),$(definition))
referrer   = $(if $(already),$(reader))
fused = $(filter 1,$(call get,$1,FUSE_PREPROCESS))
upper = $(subst f,F,$(subst int,INT,$(subst _asym,_ASYM,$(subst bf,BF,$(subst mix,MIX,$1)))))
$(foreach each,$(VARIANTS),$(eval $(each)_parameters = $$(call deploy_parameters,$$1,$(each))))
deploy_made = $(BUILD)/$m/$(CHIP)/$m_$v.$(MODEL)
$(BUILD)/%.$(MODEL): $(BUILD)/$$m/$(CHIP)/logs/$$v.key ;+
# Of all that ends so, what no other rule is nearer to.
$(BUILD)/%.key: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz \
		$(BUILD)/$$m/$(CHIP)/$$v.parameters $$(call calibrated,$$m,$$v) \
		$$(call test_prerequisite,$$m) $(call validating,$(BUILD)/$$m/$$m_in_f32.npz) $(BUILD)/.code/model_deploy.text \
		$$(call extra_code,$$(call referrer,$$m)) $$(call lost,deploy) | possible-$$m_$$v
	$(eval built_$m_$v := 1)$(if $(call doubtful,$m),$(info $m: $(call doubtful,$m)))
	$(call stage,deploy,$v) --in '$<' --in '$(word 2,$^)' \
	  $(call tables,$m,$v) $(foreach each,$(call referring,$m),--in $(call quoted,$(each))) $(if $(call fused,$m),$(call test_input,$m)) \
	  $(call validating,--in $m_test.npz='$(BUILD)/$m/$m_in_f32.npz') \
	  $(call validating,--spare '$(BUILD)/$m/$m_top_outputs.npz' '$(BUILD)/$m/logs/transform.key') \
	  --env TPUMAKE_MODEL_TOLERANCE=$(call model_tolerance,$m,$v) --libc-matters \
	  $(call tool_with,model_deploy,$(call referrer,$m)) --mlir $m.mlir --model $(notdir $(deploy_made)) $(call deploy_flags,$m,$v)

# contract: what the device will do with the model, and the file that goes with it there. A model that breaks
# it is put aside, so that nobody copies it. Chips that the device doesn't have are not bound.
device   = $(call get,$1,DEVICE)
bound    = $(if $(filter cvimodel,$(MODEL)),$(filter $(CHIP),$(CHIPS_$(device))))
side_car = $(if $(bound),$(BUILD)/$1/$(CHIP)/$1_$2.$(SIDE_CAR_$(device)))
names    = $(or $(call path,$1,LABELS),$(if $(call direct,$1),,$(BUILD)/$1/$1_v8.onnx))
contract_flags = --device $(device) --variable $1 \
	$(if $(names),$(if $(call path,$1,LABELS),--labels,--names-from) $(call quoted,$(names)))
# MaixPy does to pictures what the model doesn't.
feeding_flags  = $(if $(filter mud,$(SIDE_CAR_$(device))),$(call options,$1,MEAN SCALE) $(call option,$1,PIXEL_FORMAT,--pixel-format))
contract_parameters = $(contract_flags) $(feeding_flags) $(CODE_check_contract)
contract_made = $(call side_car,$m,$v)
$(foreach each,$(SIDE_CARS),$(eval $$(BUILD)/%.$(each): $$(BUILD)/$$$$m/$(CHIP)/logs/$$$$v.contract.key ;+))
$(BUILD)/%.contract.key: $(BUILD)/$$m/$(CHIP)/$$m_$$v.cvimodel $(BUILD)/$$m/$(CHIP)/contract.parameters $$(call as_prerequisite,$$(call names,$$m)) \
		$$(wildcard devices/$$(call device,$$m).json) $(BUILD)/.code/check_contract.text $$(call lost,contract)
	$(eval built_$m_$v := 1)
	$(call stage,contract) --untimed --in '$<' --in device='devices/$(call device,$m).json' \
	  $(if $(call names,$m),--in names=$(call quoted,$(call names,$m))) --refuse '$<' \
	  $(call helper,check_contract) '$<' '{work}/$(notdir $(contract_made))' $(call contract_flags,$m) $(call feeding_flags,$m)

include mk/detect.mk    # detect: one picture through networks and models, side by side
include mk/layers.mk    # layers: what a precision does to each
include mk/evaluate.mk  # evaluate: many pictures, and what quantisation cost
include mk/goal.mk      # goal: float layers for mix, searched by what they are worth
include mk/report.mk    # report: all that is known of a build, on a page
include mk/cache.mk     # cache: what is kept of the stages, here and elsewhere
include mk/deploy.mk  # deploy: a model onto a device, and its times there

# ---------------------------------------------------------------------------------------------
# Models: what models.mk calls at the end of a stanza

define model
$(if $(filter $1,$(MODELS)),$(error $(STANZAS): model $1 is there twice))
MODELS += $1
.PHONY: $1 $(addprefix $1_,$(VARIANTS)) $(addprefix possible-$1_,$(VARIANTS)) sources
$(addprefix possible-$1_,$(VARIANTS)):
	$$(if $$(call why_not,$$(@:possible-%=%)),@echo >&2 $$(call quoted,tpumake: $$(call why_not,$$(@:possible-%=%))); exit 2)
$1: $$$$(addprefix $1_,$$$$(call get,$1,VARIANTS))
$(foreach each,$(BUILT),$(call variant,$1,$(each))
)$(addprefix $1_,$(filter-out $(BUILT),$(VARIANTS))): %: possible-%
$(if $(call get,$1,URL),$(call fetched,$1,$(call path,$1,ONNX)))
# So that Make says which is missing.
sources: $$(foreach each,$(FILES),$$(call as_prerequisite,$$(call file_of,$1,$$(each))))
endef

# A network that is not there is fetched, once; models/fetched.lock holds everybody to the same bytes.
define fetched
$2: | $(HELPERS)
	@$(if $(JSON),>&2) '$(VENV)/bin/python' scripts/fetch_model.py '$(subst ','\'',$(call get,$1,URL))' '$$@' \
	  --lock $(call quoted,$(from)models/fetched.lock)
endef

# 1 in the builds that are made to be compared: what they made isn't there afterwards.
REPRODUCING ?=
define variant
$1_$2: possible-$1_$2 $(BUILD)/$1/$(CHIP)/$1_$2.$(MODEL) $$$$(call side_car,$1,$2) $$$$(call gated,$1,$2)
	@:$$(if $$(built_$1_$2)$(JSON),,$$(info $1_$2 is up to date.))$$(call event,{"done": "$1_$2"})
	$$(if $$(built_$1_$2),$(if $(REPRODUCING)$(JSON),,@printf '%s\n' '→ $$(word 2,$$^)' $$(if $$(call bound,$1),$$(call ONTO_$$(call device,$1),$$(word 2,$$^),$$(word 3,$$^)))))
.PHONY: $1_$2.key $1_$2.info
$1_$2.key: possible-$1_$2 $(BUILD)/$1/$(CHIP)/$1_$2.$(MODEL) | $(HELPERS)
	@'$(VENV)/bin/python' scripts/show_key.py $(if $(JSON),--json) $$(call records,$1,$2)
$1_$2.info: possible-$1_$2 $(BUILD)/$1/$(CHIP)/$1_$2.$(MODEL) | $(HELPERS)
	@'$(VENV)/bin/python' scripts/model_info.py $(if $(JSON),--json) '$$(word 2,$$^)' $$(call contract_flags,$1)
endef

# Why a model can't be built. The rule that tells it is phony, so that it comes before any stage begins,
# and does so in its recipe: prerequisites of all models are looked into whenever Make starts.
why_not    = $(or $(call impossible,$(model_of),$(variant_of)),$(call ungateable,$(model_of),$(variant_of)))
# The model of a target, which is a model or one of its variants; the variant of the latter.
model_of   = $(strip $(foreach each,$(MODELS),$(if $(filter $(each) $(addprefix $(each)_,$(VARIANTS)),$1),$(each))))
variant_of = $(patsubst $(model_of)_%,%,$1)

# The keys of a variant's stages, in their order.
records = $(if $(call direct,$1),,$(if $(filter ONNX,$(call kind,$1)),,'$(BUILD)/$1/logs/import.key') '$(BUILD)/$1/logs/downgrade.key') $(if $(call get,$1,$(samples)),'$(BUILD)/datasets/logs/$(call dataset,$1).key') \
	'$(BUILD)/$1/logs/transform.key' $(if $(filter %_calib_table,$(calibrated)),'$(BUILD)/$1/logs/calibrate.key') \
	$(if $(filter mix,$2),$(if $(call get,$1,QTABLE),,'$(BUILD)/$1/$(CHIP)/logs/$(if $(call get,$1,QTABLE_GOAL),goal,qtable).key') \
	$(if $(filter %_float_table,$(qtable)),'$(BUILD)/$1/$(CHIP)/logs/float.key')) \
	'$(BUILD)/$1/$(CHIP)/logs/$2.key'

# The Makefile's own variables, which a stanza called `model`, say, has nothing to do with: all of files but those
# that the stanzas bring.
before := $(.VARIABLES)
include $(foreach each,$(STANZAS),$(call as_prerequisite,$(call placed,$(each))))
brought := $(filter-out $(before),$(.VARIABLES))
own      = $(foreach each,$(filter-out $(brought),$(filter $1_%,$(.VARIABLES))),$(if $(filter file,$(origin $(each))),$(each)))

.PHONY: all
# all: one more make for everything, so that what came of each target is told at the end, whatever
# happens; each stage notes it in a file. It takes the outer make's flags and shares its jobs.
all:
	+@$(HOST_PYTHON) -S scripts/build_list.py --make '$(MAKE_COMMAND)' --build '$(BUILD)' \
	  $(if $(LIST),--list $(call shell_word,$(LIST))) $(if $(JSON),--json)
TPUMAKE_EVENTS ?=
event = $(if $(TPUMAKE_EVENTS),$(file >>$(TPUMAKE_EVENTS),$1))

include mk/convert.mk   # networks without a stanza
include mk/ask.mk       # what tells of models, and builds nothing new
include mk/matrix.mk    # what a build server is to build
include mk/help.mk
include mk/project.mk   # test, lint, lock, bench, clean
