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
# A model is a stanza in models.mk. `make help` tells the rest.

# The default target of this Makefile is...
help:

# Every knob can be given on the command line or in the environment.
#
# CHIP: the TPU to build for.
CHIP ?= cv181x
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
# MEMORY: what all stages that run at once may take, by default most of what there is.
MEMORY ?=
# REPRODUCIBLE: 0 goes on where the kernel can't give a tool the same addresses each time, and its
# results are other bytes each time.
REPRODUCIBLE ?= 1
# JSON: 1 has .key and .reproduce print JSON.
JSON ?=
# TPU_MLIR_VERSION: which toolchain; requirements/tpu_mlir-<version>.txt is its lock.
TPU_MLIR_VERSION ?= 1.7
# PYTHON: the host's Python, 3.10 or newer; PYTHON310: a CPython 3.10 for the toolchain, if you
# would rather have yours than the one that is found or made.
PYTHON ?= python3
PYTHON310 ?=
# VENV, TOOLCHAIN: where the two environments are.
VENV ?= .venv
TOOLCHAIN ?= .toolchain

KNOBS := CHIP BUILD VALIDATE SOURCE_DATE_EPOCH V WHY CACHE_DIR CACHE CACHE_MAX MEMORY REPRODUCIBLE \
	TPU_MLIR_VERSION PYTHON PYTHON310 VENV TOOLCHAIN

# What a stanza may assign, with its default, by what it is for. Names are those of tpu_mlir's flags;
# docs/variables.md tells what each means, and which flags have no variable and why.
STANZA_PARTS := network input dataset calibrate qtable deploy compare

STANZA_network := ONNX PT TORCHSCRIPT PB SAVEDMODEL PADDLE TFLITE PROTOTXT CAFFEMODEL URL INPUT_SHAPES \
	INPUT_TYPES OUTPUTS ONNX_SIM ADD_POSTPROCESS VARIANTS
DEFAULT_ONNX                 =
DEFAULT_PT                   =
DEFAULT_TORCHSCRIPT          =
DEFAULT_PB                   =
DEFAULT_SAVEDMODEL           =
DEFAULT_PADDLE               =
DEFAULT_TFLITE               =
DEFAULT_PROTOTXT             =
DEFAULT_CAFFEMODEL           =
DEFAULT_URL                  =
DEFAULT_INPUT_SHAPES         =
DEFAULT_INPUT_TYPES          =
DEFAULT_OUTPUTS              = auto
DEFAULT_ONNX_SIM             =
DEFAULT_ADD_POSTPROCESS      =
DEFAULT_VARIANTS             = int8

STANZA_input := MEAN SCALE PIXEL_FORMAT CHANNEL_FORMAT KEEP_ASPECT_RATIO KEEP_RATIO_MODE RESIZE_DIMS PAD_VALUE \
	PAD_TYPE WHITE_LEVEL BLACK_LEVEL PREPROCESS_LIST
DEFAULT_MEAN                 = 0,0,0
DEFAULT_SCALE                = 1,1,1
DEFAULT_PIXEL_FORMAT         = bgr
DEFAULT_CHANNEL_FORMAT       = nchw
DEFAULT_KEEP_ASPECT_RATIO    = 1
DEFAULT_KEEP_RATIO_MODE      = letterbox
DEFAULT_RESIZE_DIMS          =
DEFAULT_PAD_VALUE            = 0
DEFAULT_PAD_TYPE             = center
DEFAULT_WHITE_LEVEL          = 4095
DEFAULT_BLACK_LEVEL          = 112
DEFAULT_PREPROCESS_LIST      =

STANZA_dataset := DATASET DATA_LIST INPUT_NUM TUNE_LIST TEST_INPUT
DEFAULT_DATASET              =
DEFAULT_DATA_LIST            =
DEFAULT_INPUT_NUM            = 100
DEFAULT_TUNE_LIST            =
DEFAULT_TEST_INPUT           =

STANZA_calibrate := TUNE_NUM HISTOGRAM_BIN_NUM CALIBRATION_DEBUG_CMD
DEFAULT_TUNE_NUM             = 5
DEFAULT_HISTOGRAM_BIN_NUM    = 2048
DEFAULT_CALIBRATION_DEBUG_CMD =

STANZA_qtable := QTABLE_INPUT_NUM EXPECTED_COS MIN_LAYER_COS FP_TYPE GLOBAL_COMPARE_LAYERS
DEFAULT_QTABLE_INPUT_NUM     = 10
DEFAULT_EXPECTED_COS         = 0.99
DEFAULT_MIN_LAYER_COS        = 0.99
DEFAULT_FP_TYPE              = auto
DEFAULT_GLOBAL_COMPARE_LAYERS =

STANZA_deploy := FUSE_PREPROCESS CUSTOMIZATION_FORMAT ALIGNED_INPUT QUANT_INPUT QUANT_OUTPUT QUANT_INPUT_LIST \
	QUANT_OUTPUT_LIST IGNORE_F16_OVERFLOW OP_DIVIDE OPT DISABLE_LAYER_GROUP DYNAMIC ADDR_MODE NUM_CORE NUM_DEVICE \
	GROUP_BY_CORES COMPRESS_MODE MODEL_VERSION
DEFAULT_FUSE_PREPROCESS      = $(on_camera)
DEFAULT_CUSTOMIZATION_FORMAT = RGB_PACKED
DEFAULT_ALIGNED_INPUT        = 1
DEFAULT_QUANT_INPUT          = $(on_camera)
DEFAULT_QUANT_OUTPUT         = 0
DEFAULT_QUANT_INPUT_LIST     =
DEFAULT_QUANT_OUTPUT_LIST    =
DEFAULT_IGNORE_F16_OVERFLOW  = 0
DEFAULT_OP_DIVIDE            = 0
DEFAULT_OPT                  = 2
DEFAULT_DISABLE_LAYER_GROUP  = 0
DEFAULT_DYNAMIC              = 0
DEFAULT_ADDR_MODE            = auto
DEFAULT_NUM_CORE             = 1
DEFAULT_NUM_DEVICE           = 1
DEFAULT_GROUP_BY_CORES       = auto
DEFAULT_COMPRESS_MODE        = none
DEFAULT_MODEL_VERSION        = latest

STANZA_compare := TOLERANCE TRANSFORM_TOLERANCE INT8_TOLERANCE INT8_ASYM_TOLERANCE MIX_TOLERANCE BF16_TOLERANCE \
	F16_TOLERANCE F32_TOLERANCE MODEL_TOLERANCE EXCEPTS COMPARE_ALL SKIP_VALIDATION
DEFAULT_TOLERANCE            =
DEFAULT_TRANSFORM_TOLERANCE  = 0.99,0.99
DEFAULT_INT8_TOLERANCE       = $(call tolerance,$1,$(if $(filter cvimodel,$(MODEL)),0.8$(comma)0.5,0.85$(comma)0.45))
DEFAULT_INT8_ASYM_TOLERANCE  = $(call tolerance,$1,$(if $(filter cvimodel,$(MODEL)),0.8$(comma)0.5,0.90$(comma)0.55))
DEFAULT_MIX_TOLERANCE        = $(DEFAULT_INT8_TOLERANCE)
DEFAULT_BF16_TOLERANCE       = $(call tolerance,$1,0.95$(comma)0.8)
DEFAULT_F16_TOLERANCE        = $(call tolerance,$1,0.99$(comma)0.9)
DEFAULT_F32_TOLERANCE        = $(call tolerance,$1,0.99$(comma)0.99)
DEFAULT_MODEL_TOLERANCE      = 0.99,0.90
DEFAULT_EXCEPTS              =
DEFAULT_COMPARE_ALL          = 0
DEFAULT_SKIP_VALIDATION      = 0

# A general tolerance holds for every variant that has none of its own.
tolerance = $(or $(call get,$1,TOLERANCE),$2)
# The cv18x sit in cameras, whose pictures go into the model as they come. Tensors have no such form.
on_camera = $(if $(filter cvimodel,$(MODEL)),$(if $(call tensors,$1),0,1),0)

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
export V WHY CACHE_DIR CACHE CACHE_MAX MEMORY VENV PYTHON310

empty :=
space := $(empty) $(empty)
comma := ,
define newline


endef

# What each chip computes in; a mixed model only where the search for its float layers knows the chip.
# For a cv18x, tpu_mlir takes F16 and silently writes BF16. Version 1.7 takes --asymmetric and writes the
# same as without; ASYMMETRIC_<version> is 1 where a toolchain honours it.
ASYMMETRIC_1.7 :=
ASYMMETRIC     := $(if $(filter 1,$(ASYMMETRIC_$(TPU_MLIR_VERSION))),int8_asym)
CV18X := cv180x cv181x cv182x cv183x
$(foreach each,$(CV18X),$(eval VARIANTS_$(each) := int8 mix bf16))
VARIANTS_bm1684x := int8 mix bf16 f16 f32
VARIANTS_bm1684  := int8 mix f32
VARIANTS_bm1688  := int8 bf16 f16 f32
VARIANTS_cv186x  := int8 bf16 f16 f32
VARIANTS_bm1690  := int8 bf16 f16 f32
CHIPS    := $(CV18X) bm1684x bm1684 bm1688 cv186x bm1690
VARIANTS := int8 int8_asym mix bf16 f16 f32
BUILT    := $(VARIANTS_$(CHIP)) $(ASYMMETRIC)
# What a model for the chip is called.
MODEL    := $(if $(filter $(CHIP),$(CV18X)),cvimodel,bmodel)
MODELS   :=
ifeq ($(filter $(CHIP),$(CHIPS)),)
$(error CHIP=$(CHIP) is not known; known are: $(CHIPS))
endif

# $(call get,MODEL,NAME): what the stanza says, or the default.
get = $(strip $(if $(filter undefined,$(origin $1_$2)),$(DEFAULT_$2),$($1_$2)))
# $(call path,MODEL,NAME): the same for a file or folder. The shell may have left a ~ in it. Spaces,
# which Make takes for separators, become `?` until it is used in one of these two ways:
path            = $(patsubst ~/%,$(HOME)/%,$(subst $(space),?,$(call get,$1,$2)))
as_prerequisite = $(subst ?,\$(space),$1)
quoted          = '$(subst ?,$(space),$(subst ','\'',$1))'
# $(call flag,MODEL,NAME,--flag): the flag if the variable is 1.
flag   = $(if $(filter 1,$(call get,$1,$2)),$3)
# $(call option,MODEL,NAME,--option): the option with its value, if there is one.
option = $(if $(call get,$1,$2),$3 $(call quoted,$(call get,$1,$2)))
# $(call options,MODEL,NAMES), $(call switches,MODEL,NAMES): the flags of these names, --pad_value for
# PAD_VALUE. $(call unusual,MODEL,NAMES): only those whose value is not what the tool does by itself.
options  = $(foreach each,$2,$(call option,$1,$(each),--$(call lower,$(each))))
switches = $(foreach each,$2,$(call flag,$1,$(each),--$(call lower,$(each))))
unusual  = $(foreach each,$2,$(if $(filter undefined,$(origin $1_$(each))),,$(if \
	$(filter-out $(DEFAULT_$(each)),$($1_$(each))),$(call option,$1,$(each),--$(call lower,$(each))))))
lower    = $(subst A,a,$(subst B,b,$(subst C,c,$(subst D,d,$(subst E,e,$(subst F,f,$(subst G,g,$(subst H,h,$(subst I,i,$(subst J,j,$(subst K,k,$(subst L,l,$(subst M,m,$(subst N,n,$(subst O,o,$(subst P,p,$(subst Q,q,$(subst R,r,$(subst S,s,$(subst T,t,$(subst U,u,$(subst V,v,$(subst W,w,$(subst X,x,$(subst Y,y,$(subst Z,z,$1))))))))))))))))))))))))))
# $(call validating,TEXT): the text, unless VALIDATE=0.
validating = $(if $(filter 0,$(VALIDATE)),,$1)
# $(call differs,FILE,TEXT): FORCE unless the file holds just this text. Reads, forks nothing.
differs = $(call different,x$(strip $(file <$1)),x$(strip $2))
different = $(if $(and $(findstring $1,$2),$(findstring $2,$1)),,FORCE)

# A folder is made when something needs it.
%/:
	@mkdir -p '$@'

# What has no rule and is not there. `sources`, below, makes Make name the missing file itself.
.DEFAULT:
	@echo >&2 'tpumake: there is no $@$(if $(named_by),$(comma) which $(named_by) names); make list shows what can be built'
	@exit 2
named_by = $(strip $(foreach each,$(MODELS),$(foreach name,$(SOURCES) CAFFEMODEL TEST_INPUT,$(if \
	$(filter $@,$(call path,$(each),$(name))),$(each)_$(name)))))

# ---------------------------------------------------------------------------------------------
# Set-up: two environments, each made once from its lock

HELPERS        := $(VENV)/ready
HELPERS_FROM   := requirements/helpers.txt scripts/setup_venv.py
DEV            := $(VENV)/ready-dev
DEV_FROM       := requirements/dev.txt
TOOLCHAIN_HERE := $(TOOLCHAIN)/$(TPU_MLIR_VERSION)
TOOLS          := $(TOOLCHAIN_HERE)/ready
TOOLS_FROM     := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/setup_toolchain.py scripts/assemble_python.py
# An environment holds a copy of what it was made from. It is made anew when that has changed, by
# content and not by time, so that one in a container's image serves every checkout; or when the
# Python that it was made with is gone.
outdated = $(call differs,$1,$(foreach each,$2,$(file <$(each)))) $(if $(realpath $3),,FORCE)

$(HELPERS): $(call outdated,$(HELPERS),$(HELPERS_FROM),$(VENV)/bin/python)
	@$(PYTHON) scripts/setup_venv.py '$(VENV)' $(firstword $(HELPERS_FROM)) && cat $(HELPERS_FROM) > '$@'

$(DEV): $(call outdated,$(DEV),$(DEV_FROM),$(VENV)/bin/python) $(HELPERS)
	@$(PYTHON) scripts/setup_venv.py --add '$(VENV)' $(DEV_FROM) && cat $(DEV_FROM) > '$@'

$(TOOLS): $(call outdated,$(TOOLS),$(TOOLS_FROM),$(TOOLCHAIN_HERE)/bin/python3) | $(HELPERS)
	@'$(VENV)/bin/python' scripts/setup_toolchain.py --version $(TPU_MLIR_VERSION) '$(@D)' && cat $(TOOLS_FROM) > '$@'

.PHONY: setup
setup: $(HELPERS) $(TOOLS)

# What Make is measured against, for `make bench` and nothing else.
BENCH_VENV ?= .bench
BENCH      := $(BENCH_VENV)/ready
BENCH_FROM := requirements/bench.txt
$(BENCH): $(call outdated,$(BENCH),$(BENCH_FROM),$(BENCH_VENV)/bin/python)
	@$(PYTHON) scripts/setup_venv.py '$(BENCH_VENV)' $(BENCH_FROM) && cat $(BENCH_FROM) > '$@'

# ---------------------------------------------------------------------------------------------
# The pipeline. In each rule $m is the model, taken from the target's name: build/$m/…

m = $(firstword $(subst /, ,$*))
# The variant, where the target's name ends in one: build/$m/<chip>/$m_$v.cvimodel
v = $(patsubst $m_%,%,$(notdir $*))
# One place for what all stages need: a private folder, log, progress, checks, atomic results.
# It needs no environment; what it runs does, and only where it has to run.
stage = @$(HOST_PYTHON) -S scripts/run_stage.py --build '$(BUILD)' --make '$(MAKE_COMMAND)' --model $1 --stage
# The environment's own is the same Python, and starts at once where python3 is a script that looks for it.
HOST_PYTHON = $(or $(wildcard $(VENV)/bin/python),$(PYTHON))
# Our own helpers are started at the top, and write into {work}, the private folder.
helper = --needs '$(HELPERS)' $(call code,$(CODE_$1)) --top -- '$(VENV)/bin/python' scripts/$1.py
tool   = --needs '$(TOOLS)' $(call code,$(CODE_$1)) --env SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) \
	$(if $(filter 0,$(REPRODUCIBLE)),--env REPRODUCIBLE=0,--same-addresses) -- '$(TOOLCHAIN_HERE)/run' $1.py
# What does a stage's work is part of its key, by content, and a prerequisite.
code = $(foreach each,$1,--code $(each))
library = $(addprefix scripts/tpumake/,$(addsuffix .py,$1))
LOCK := requirements/helpers.txt
CODE_check_stanza := $(LOCK) scripts/check_stanza.py schemas/stanza.schema.json
CODE_normalize_dataset := $(LOCK) scripts/normalize_dataset.py $(call library,datasets lists pictures samples npz)
CODE_onnx_downgrade := $(LOCK) scripts/onnx_downgrade.py $(call library,onnx_io detection_head) \
	$(wildcard scripts/tpumake/downgrade/*.py)
CODE_run_calibration := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt $(call library,settling cvimodel bmodel)
CODE_run_qtable := $(CODE_run_calibration) scripts/toolchain_bin/dot
CODE_model_transform := $(CODE_run_calibration) $(LOCK) scripts/toolchain_bin/npz_tool.py scripts/npz_compare.py \
	$(call library,npz npz_compare similarity)
CODE_model_deploy := $(CODE_model_transform)

# Writes a file without a process, and nothing under `make -n`.
write = $(if $(findstring n,$(firstword -$(MAKEFLAGS))),,$(file >$1,$2))
# A stage's parameters, which files it takes and which code does its work, are a file that it depends on. That is written only
# when they differ from what it holds, so changed parameters are newer than what others made.
parameters = $(strip $(if $(filter datasets,$m),$(call set_flags,$(call set_user,$(@F:.parameters=))) $(CODE_normalize_dataset),$(call $(@F:.parameters=)_parameters,$m)))
$(BUILD)/%.parameters: $$(call differs,$$@,$$(parameters)) | $$(@D)/
	@:$(call write,$@,$(parameters))

# The stanza is checked as a whole, before anything runs.
json = "$(subst ",\",$(subst \,\\,$1))"
assigned = $(sort $(filter-out $(addsuffix _%,$(filter $1_%,$(MODELS))) $(addprefix $1_,$(filter-out $(ordered),$(SOURCES))),$(filter $1_%,$(.VARIABLES))))
stanza_parameters = {$(foreach each,$(call assigned,$1),$(call json,$(each:$1_%=%)): $(call json,$(strip $($(each)))),)"model": "$1"}
$(BUILD)/%/checked: $(BUILD)/%/stanza.parameters $(CODE_check_stanza)
	$(call stage,$*) stanza --log '$(BUILD)/$*/logs/stanza.log' --out '$@' --in '$<' \
	  $(call helper,check_stanza) '$<' '{work}/$(@F)'

# dataset: pictures of any kind, or tensors, in the form and number that the calibration takes. Of a
# folder, or DATASET's list, some are chosen; of the other two lists the first ones are taken, in their order.
# $* is the set's name.
LISTS      := DATA_LIST TUNE_LIST
set        = $(patsubst -%,%,$(subst ?,_,$(subst /,-,$(patsubst datasets/%,%,$(patsubst %/,%,$(call path,$1,$2))))))$(if $(filter $2,$(LISTS)),-listed)$(patsubst %,-%,$(filter-out 100,$(call set_number,$1,$2)))
set_number = $(call get,$1,$(if $(filter TUNE_LIST,$2),TUNE_NUM,INPUT_NUM))
samples    = $(if $(call get,$1,DATA_LIST),DATA_LIST,DATASET)
dataset    = $(call set,$1,$(call samples,$1))
tune       = $(if $(call get,$1,TUNE_LIST),$(call set,$1,TUNE_LIST))
# Whose set it is, and from which variable: MODEL:NAME.
set_user = $(firstword $(foreach each,$(MODELS),$(foreach name,DATASET $(LISTS),$(if $(call get,$(each),$(name)),$(if $(filter $1,$(call set,$(each),$(name))),$(each):$(name))))))
set_path = $(call path,$(word 1,$(subst :, ,$1)),$(word 2,$(subst :, ,$1)))
# The folder or list, and what is in it. Names with spaces fall apart into words that are no files; where
# there are such, the stage looks at the contents each time.
pictures = $(call files,$(call inside,$1))
inside   = $(if $(wildcard $(patsubst %/,%,$1)/.),$(wildcard $1 $(patsubst %/,%,$1)/* $(patsubst %/,%,$1)/*/* $(patsubst %/,%,$1)/*/*/*),$(wildcard $1) $(call listed,$1))
listed   = $(foreach each,$(if $(wildcard $1),$(subst $(comma), ,$(file <$1))),$(if $(filter /%,$(each)),$(each),$(dir $1)$(each)))
files    = $(call files_of,$(wildcard $1),$1)
files_of = $1 $(if $(filter $(words $1),$(words $2)),,FORCE)
# .npz or .npy where the samples are tensors; looked up once, for that reads folders.
tensors  = $(if $(filter undefined,$(origin tensors_of_$1)),$(eval tensors_of_$1 := $$(firstword $$(filter .npz .npy,$$(suffix $$(call inside,$$(call path,$1,$(call samples,$1))))))))$(tensors_of_$1)
set_flags = $(call quoted,$(call set_path,$1)) --count $(call set_number,$(word 1,$(subst :, ,$1)),$(word 2,$(subst :, ,$1))) \
	$(if $(filter $(LISTS),$(word 2,$(subst :, ,$1))),--in-order) \
	$(if $(call tensors,$(word 1,$(subst :, ,$1))),$(call option,$(word 1,$(subst :, ,$1)),INPUT_SHAPES,--input-shapes))
$(BUILD)/datasets/%/manifest.json: $(BUILD)/datasets/%.parameters $(CODE_normalize_dataset) \
		$$(call pictures,$$(call set_path,$$(call set_user,$$*)))
	$(call stage,$*) dataset --log '$(BUILD)/datasets/logs/$*.log' --out '$(@D)' $(if $(filter-out FORCE,$?),,--keep-times) \
	  --in source=$(call quoted,$(call set_path,$(call set_user,$*))) --lists source \
	  $(call helper,normalize_dataset) $(call set_flags,$(call set_user,$*)) '{work}/$*' --progress

# What a network comes as, by the stanza variable that names its file or folder: as ONNX; as what is
# made into ONNX first; as what tpu_mlir reads by itself. A TFLite network only the BM chips take so.
SOURCES := ONNX PT PB SAVEDMODEL PADDLE TFLITE PROTOTXT TORCHSCRIPT
DIRECT  := PROTOTXT TORCHSCRIPT $(if $(filter bmodel,$(MODEL)),TFLITE)
FRAMEWORK_PT         := torch
FRAMEWORK_PB         := tensorflow
FRAMEWORK_SAVEDMODEL := tensorflow
FRAMEWORK_TFLITE     := tensorflow
FRAMEWORK_PADDLE     := paddle
named     = $(foreach each,$(SOURCES),$(if $(call get,$1,$(each)),$(each)))
# One that is given on the command line comes before what the stanza says.
ordered   = $(or $(foreach each,$(named),$(if $(filter command,$(origin $1_$(each))),$(each))),$(named))
kind      = $(firstword $(ordered))
source    = $(call path,$1,$(call kind,$1))
direct    = $(filter $(DIRECT),$(call kind,$1))
framework = $(FRAMEWORK_$(call kind,$1))
onnx      = $(if $(filter ONNX,$(call kind,$1)),$(call source,$1),$(BUILD)/$1/$1_imported.onnx)

# import: a network of another framework, as ONNX. Each framework is an environment of its own.
import_flags = $(call option,$1,INPUT_SHAPES,--input-shapes)
import_parameters = $(call source,$1) $(import_flags) $(CODE_import_$(call framework,$1))
$(BUILD)/%_imported.onnx: $$(call as_prerequisite,$$(call source,$$m)) $(BUILD)/$$m/import.parameters \
		$$(CODE_import_$$(call framework,$$m)) | $(BUILD)/$$m/checked
	$(call stage,$m) import --log '$(BUILD)/$m/logs/import.log' --out '$@' \
	  --in source=$(call quoted,$(call source,$m)) \
	  $(call extra,$(call framework,$m)) $(call quoted,$(call source,$m)) '{work}/$(@F)' $(call import_flags,$m)

# downgrade: an ONNX that tpu_mlir's older onnx reads, with its head cut where the device's begins.
downgrade_flags = --verify $(if $(filter none,$(call get,$1,OUTPUTS)),,$(call option,$1,OUTPUTS,--outputs))
downgrade_parameters = $(call onnx,$1) $(downgrade_flags) $(CODE_onnx_downgrade)
$(BUILD)/%_v8.onnx: $$(call as_prerequisite,$$(call onnx,$$m)) $(BUILD)/$$m/downgrade.parameters \
		$(CODE_onnx_downgrade) | $(BUILD)/$$m/checked
	$(call stage,$m) downgrade --log '$(BUILD)/$m/logs/downgrade.log' --out '$@' \
	  --in source=$(call quoted,$(call onnx,$m)) \
	  $(call helper,onnx_downgrade) $(call quoted,$(call onnx,$m)) '{work}/$(@F)' $(call downgrade_flags,$m)

# transform: to tpu_mlir's own form, run beside the ONNX on a test picture. The weights are a file
# that the tools look for where they are started, under the name that transform gave it.
# What it reads, as NAME=FILE, NAME being its name in the stage's folder.
definition = $(if $(call direct,$1),$(definition_$(call kind,$1)),$1_v8.onnx=$(BUILD)/$1/$1_v8.onnx)
definition_TFLITE      = $1.tflite=$(call source,$1)
definition_PROTOTXT    = $1.prototxt=$(call source,$1) $1.caffemodel=$(call path,$1,CAFFEMODEL)
definition_TORCHSCRIPT = $1.pt=$(call source,$1)
definition_files = $(foreach each,$(definition),$(patsubst $(firstword $(subst =, ,$(each)))=%,%,$(each)))
definition_names = $(foreach each,$(definition),$(firstword $(subst =, ,$(each))))
definition_flags = $(addprefix --model_def ,$(firstword $(definition_names))) $(addprefix --model_data ,$(word 2,$(definition_names)))
TRANSFORM_OPTIONS := INPUT_SHAPES MEAN SCALE PIXEL_FORMAT
TRANSFORM_UNUSUAL := CHANNEL_FORMAT RESIZE_DIMS KEEP_RATIO_MODE PAD_VALUE PAD_TYPE WHITE_LEVEL BLACK_LEVEL PREPROCESS_LIST \
	INPUT_TYPES ONNX_SIM ADD_POSTPROCESS
transform_flags = $(definition_flags) $(call options,$1,$(TRANSFORM_OPTIONS)) $(call unusual,$1,$(TRANSFORM_UNUSUAL)) \
	$(call switches,$1,KEEP_ASPECT_RATIO) $(call validating, --test_input $(call test_names,$1) \
	--test_result $1_top_outputs.npz $(call option,$1,TRANSFORM_TOLERANCE,--tolerance) $(call unusual,$1,EXCEPTS))
transform_parameters = $(transform_flags) $(call validating,$(test_files)) $(CODE_model_transform)
# What models are compared on: TEST_INPUT, files with commas between, or the set's first sample; for networks
# of several inputs a file for each, or one .npz for all. The tools look at suffixes, OpenCV only at a
# picture's content: hence one name for all kinds of them.
test_files = $(or $(patsubst ~/%,$(HOME)/%,$(subst $(comma), ,$(subst $(space),?,$(call get,$1,TEST_INPUT)))),$(patsubst %,$(BUILD)/datasets/$(dataset)/Calibration%.*,$(call files_of_sample,$1)))
test_kind  = $(or $(filter .npz .npy,$(if $(call get,$1,TEST_INPUT),$(suffix $(firstword $(test_files))),$(tensors))),.jpg)
test_named = $(join $(patsubst %,$1_test%$(test_kind)=,$(if $(word 2,$(test_files)),$(wordlist 1,$(words $(test_files)),$(NUMBERS)))),$(if $(word 2,$(test_files)),,$1_test$(test_kind)=)$(test_files))
test_names = $(subst $(space),$(comma),$(strip $(foreach each,$(test_named),$(firstword $(subst =, ,$(each))))))
test_input = $(call validating,$(foreach each,$(test_named),--in $(call quoted,$(each))))
test_prerequisite = $(call validating,$(or $(if $(call get,$1,TEST_INPUT),$(call as_prerequisite,$(test_files))),$(call calibration_set,$1)))
# One set has all samples; where a sample is several files, they are Calibration1_1.jpg, Calibration1_2.jpg, ….
files_of_sample = $(if $(filter-out 1,$(inputs)),$(if $(filter .npz,$(tensors)),1,$(addprefix 1_,$(wordlist 1,$(inputs),$(NUMBERS)))),1)
inputs  = $(or $(words $(subst ]$(comma),] ,$(subst $(space),,$(call get,$1,INPUT_SHAPES)))),1)
NUMBERS := 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
# A stage never leaves half a result, but Make would take earlier ones of a group for that.
.PRECIOUS: $(addprefix $(BUILD)/%,.mlir _top_f32_all_weight.npz _in_f32.npz)
VALIDATED = $(call validating,$(BUILD)/%_in_f32.npz)
$(BUILD)/%.mlir $(BUILD)/%_top_f32_all_weight.npz $(VALIDATED): $$(call as_prerequisite,$$(call definition_files,$$m)) \
		$(BUILD)/$$m/transform.parameters $$(call test_prerequisite,$$m) $(CODE_model_transform) | $(BUILD)/$$m/checked
	$(call stage,$m) transform --log '$(BUILD)/$m/logs/transform.log' \
	  $(foreach each,$(call definition,$m),--in $(call quoted,$(each))) $(call test_input,$m) --out '$(BUILD)/$*.mlir' --out '$(BUILD)/$*_top_f32_all_weight.npz' \
	  $(foreach each,$(VALIDATED),--out $(subst %,$*,$(each))) --by-product '$(BUILD)/$*_top_outputs.npz' \
	  $(call tool,model_transform) --model_name $m --mlir $m.mlir $(call transform_flags,$m)

# calibrate: the range of every tensor over the pictures.
CALIBRATE_OPTIONS := INPUT_NUM TUNE_NUM HISTOGRAM_BIN_NUM
calibrate_flags = $(sample_flags) $(if $(tune),--tune_list tune.txt) $(call options,$1,$(CALIBRATE_OPTIONS)) \
	$(call option,$1,CALIBRATION_DEBUG_CMD,--debug_cmd)
calibrate_parameters = $(calibrate_flags) $(SOURCE_DATE_EPOCH) $(calibration_set) $(tune_set) $(CODE_run_calibration)
# A list where the order counts or a sample is several files; the stage writes it.
sample_flags = $(if $(or $(filter DATA_LIST,$(samples)),$(filter-out 1,$(files_of_sample))),--data_list dataset.txt,--dataset dataset)
tune_set = $(patsubst %,$(BUILD)/datasets/%/manifest.json,$(tune))
calibration_set = $(BUILD)/datasets/$(call dataset,$1)/manifest.json
$(BUILD)/%_calib_table: $(BUILD)/%.mlir $(BUILD)/%_top_f32_all_weight.npz $(BUILD)/$$m/calibrate.parameters \
		$$(call calibration_set,$$m) $$(call tune_set,$$m) $(CODE_run_calibration)
	$(call stage,$m) calibrate --log '$(BUILD)/$m/logs/calibrate.log' --in '$<' --in '$(word 2,$^)' \
	  --in dataset='$(BUILD)/datasets/$(call dataset,$m)' $(patsubst %/manifest.json,--in tune='%',$(call tune_set,$m)) --out '$@' \
	  $(call tool,run_calibration) $m.mlir -o $m_calib_table $(call calibrate_flags,$m)

# qtable: the layers that stay in float where INT8 alone is not good enough. Its search asks the chip.
QTABLE_OPTIONS := EXPECTED_COS MIN_LAYER_COS FP_TYPE GLOBAL_COMPARE_LAYERS
qtable_flags = $(sample_flags) --processor $(CHIP) --input_num $(call get,$1,QTABLE_INPUT_NUM) $(call options,$1,$(QTABLE_OPTIONS))
qtable_parameters = $(qtable_flags) $(SOURCE_DATE_EPOCH) $(calibration_set) $(CODE_run_qtable)
$(BUILD)/%_qtable $(BUILD)/%_loss_table.txt: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz \
		$(BUILD)/$$m/$$m_calib_table $(BUILD)/$$m/$(CHIP)/qtable.parameters $$(call calibration_set,$$m) \
		$(CODE_run_qtable)
	$(call stage,$m) qtable --log '$(BUILD)/$m/$(CHIP)/logs/qtable.log' --in '$<' --in '$(word 2,$^)' --in '$(word 3,$^)' \
	  --in dataset='$(BUILD)/datasets/$(call dataset,$m)' \
	  --out '$(BUILD)/$m/$(CHIP)/$m_qtable' --out '$(BUILD)/$m/$(CHIP)/$m_loss_table.txt' \
	  $(call tool,run_qtable) $m.mlir --calibration_table $m_calib_table \
	  -o $m_qtable --loss_table $m_loss_table.txt $(call qtable_flags,$m)

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
# What tpu_mlir builds without a word, though it is not what was asked for: the form of a picture of another
# number of channels than the network's.
doubtful = $(if $(fused),$(if $(filter GRAYSCALE.1 RGBA_PLANAR.4,$(form).$(channels)),,$(if $(filter GRAYSCALE RGBA_PLANAR,$(form)), \
	CUSTOMIZATION_FORMAT = $(form) means nothing for a network of $(channels) channels: its input will be $(channels) planes)))
form     = $(call get,$1,CUSTOMIZATION_FORMAT)
channels = $(word $(if $(filter nhwc,$(call get,$1,CHANNEL_FORMAT)),4,2),$(subst $(comma), ,$(subst ], ,$(subst [, ,$(subst $(space),,$(call get,$1,INPUT_SHAPES))))))
# What can't be built, and why; known before anything runs.
impossible = $(or \
	$(if $(filter int8_asym,$2),$(if $(ASYMMETRIC),,tpu_mlir $(TPU_MLIR_VERSION) takes --asymmetric and then writes the same model as without: make $1_int8)), \
	$(if $(filter $2,$(BUILT)),,$(CHIP) does not compute in $(call upper,$2)$(if $(filter f16,$2),$(if $(filter cvimodel,$(MODEL)),$(comma) and tpu_mlir would write BF16 under that name)); make $(addprefix $1_,$(VARIANTS_$(CHIP)))), \
	$(if $(fused),$(or $(call impossible_form,$1,$2,$(form)), \
	$(call validating,$(if $(filter .jpg,$(test_kind)),,a model with FUSE_PREPROCESS = 1 is compared on pictures$(comma) and $1_TEST_INPUT names none: give it some$(comma) or VALIDATE=0)))), \
	$(if $(filter 1,$(call get,$1,DYNAMIC)),$(if $(filter cvimodel,$(MODEL)),$(CHIP) runs no models of DYNAMIC = 1)))
impossible_form = $(or $(if $(filter %_RAW,$3),$(or \
	$(if $(filter bmodel,$(MODEL)),,tpu_mlir can't compile CUSTOMIZATION_FORMAT = $3 for $(CHIP)), \
	$(if $(filter f16 bf16 f32,$2),,tpu_mlir can't compile CUSTOMIZATION_FORMAT = $3 in $(call upper,$2)), \
	$(call validating,tpu_mlir makes no test pictures for CUSTOMIZATION_FORMAT = $3: VALIDATE=0))), \
	$(if $(filter rgba,$(call get,$1,PIXEL_FORMAT)),$(call validating,tpu_mlir makes no test pictures for PIXEL_FORMAT = rgba with FUSE_PREPROCESS = 1: VALIDATE=0)))
# For a bmodel the tools link the right emulator into their own installation, so one at a time.
# tpu_mlir has a fixed tolerance for the emulator against the quantised network; ours is a variable.
deploy_parameters = $(deploy_flags) $(SOURCE_DATE_EPOCH) $(call validating,$(test_files) $(call get,$1,MODEL_TOLERANCE)) $(CODE_model_deploy)
calibrated = $(strip $(if $(filter int8 int8_asym mix,$2),$(BUILD)/$1/$1_calib_table) $(if $(filter mix,$2),$(BUILD)/$1/$(CHIP)/$1_qtable))
fused = $(filter 1,$(call get,$1,FUSE_PREPROCESS))
upper = $(subst f,F,$(subst int,INT,$(subst _asym,_ASYM,$(subst bf,BF,$(subst mix,MIX,$1)))))
$(foreach each,$(VARIANTS),$(eval $(each)_parameters = $$(call deploy_parameters,$$1,$(each))))
$(BUILD)/%.$(MODEL): $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz \
		$(BUILD)/$$m/$(CHIP)/$$v.parameters $$(call calibrated,$$m,$$v) \
		$$(call test_prerequisite,$$m) $(call validating,$(BUILD)/$$m/$$m_in_f32.npz) $(CODE_model_deploy)
	$(eval built_$m_$v := 1)$(if $(call doubtful,$m),$(info $m: $(call doubtful,$m)))
	$(call stage,$m) deploy --label $v --log '$(BUILD)/$m/$(CHIP)/logs/$v.log' --in '$<' --in '$(word 2,$^)' \
	  $(foreach each,$(call calibrated,$m,$v),--in '$(each)') $(if $(call fused,$m),$(call test_input,$m)) \
	  $(call validating,--in $m_test.npz='$(BUILD)/$m/$m_in_f32.npz') --out '$@' \
	  $(call validating,--spare '$(BUILD)/$m/$m_top_outputs.npz' '$(BUILD)/$m/logs/transform.key') \
	  --env TPUMAKE_MODEL_TOLERANCE=$(call get,$m,MODEL_TOLERANCE) --libc-matters \
	  $(if $(filter bmodel,$(MODEL)),$(call validating,--alone '$(TOOLCHAIN_HERE)/cmodel.lock')) \
	  $(call tool,model_deploy) --mlir $m.mlir --model $(@F) $(call deploy_flags,$m,$v)

# ---------------------------------------------------------------------------------------------
# Models: what models.mk calls at the end of a stanza

define model
$(if $(filter $1,$(MODELS)),$(error models.mk: model $1 is there twice))
MODELS += $1
.PHONY: $1 $(addprefix $1_,$(VARIANTS)) $(addprefix possible-$1_,$(VARIANTS)) sources
$(addprefix possible-$1_,$(VARIANTS)):
	$$(if $$(call why_not,$$(@:possible-%=%)),@echo >&2 $$(call quoted,tpumake: $$(call why_not,$$(@:possible-%=%))); exit 2)
$1: $$$$(addprefix $1_,$$$$(call get,$1,VARIANTS))
$(foreach each,$(BUILT),$(call variant,$1,$(each))
)$(addprefix $1_,$(filter-out $(BUILT),$(VARIANTS))): %: possible-%
$(if $(call get,$1,URL),$(call fetched,$1,$(call path,$1,ONNX)))
# So that Make says which is missing.
sources: $$(foreach each,$(SOURCES) CAFFEMODEL TEST_INPUT,$$(call as_prerequisite,$$(call path,$1,$$(each))))
endef

# A network that is not there is fetched, once; models/fetched.lock holds everybody to the same bytes.
define fetched
$2: | $(HELPERS)
	@'$(VENV)/bin/python' scripts/fetch_model.py '$(call get,$1,URL)' '$$@'
endef

# 1 in the builds that are made to be compared: what they made isn't there afterwards.
REPRODUCING ?=
define variant
$1_$2: possible-$1_$2 $(BUILD)/$1/$(CHIP)/$1_$2.$(MODEL)
	@:$$(if $$(built_$1_$2),,$$(info $1_$2 is up to date.))
	$$(if $$(built_$1_$2),$(if $(REPRODUCING),,@printf '%s\n' '→ $$(word 2,$$^)' $(if $(filter cv181x,$(CHIP)),'  onto a reCamera: scp $$(word 2,$$^) recamera@192.168.42.1:/userdata/Models/model.cvimodel')))
.PHONY: $1_$2.key
$1_$2.key: possible-$1_$2 $(BUILD)/$1/$(CHIP)/$1_$2.$(MODEL) | $(HELPERS)
	@'$(VENV)/bin/python' scripts/show_key.py $(if $(JSON),--json) $$(call records,$1,$2)
endef

# Why a model can't be built. The rule that tells it is phony, so that it comes before any stage begins,
# and does so in its recipe: prerequisites of all models are looked into whenever Make starts.
why_not  = $(call impossible,$(call model_of,$1),$(patsubst $(call model_of,$1)_%,%,$1))
model_of = $(lastword $(sort $(foreach each,$(MODELS),$(if $(filter $(addprefix $(each)_,$(VARIANTS)),$1),$(each)))))

# The keys of a variant's stages, in their order.
records = $(if $(call direct,$1),,$(if $(filter ONNX,$(call kind,$1)),,'$(BUILD)/$1/logs/import.key') '$(BUILD)/$1/logs/downgrade.key') $(if $(call get,$1,$(samples)),'$(BUILD)/datasets/logs/$(call dataset,$1).key') \
	'$(BUILD)/$1/logs/transform.key' $(if $(filter int8 int8_asym mix,$2),'$(BUILD)/$1/logs/calibrate.key') \
	$(if $(filter mix,$2),'$(BUILD)/$1/$(CHIP)/logs/qtable.key') \
	'$(BUILD)/$1/$(CHIP)/logs/$2.key'

include models.mk

.PHONY: all list
all: $(MODELS)

# reproduce: what is built twice from nothing, under other conditions, has the same bytes.
# The models that a target belongs to, and where what they are built from is.
reproduced = $(strip $(foreach each,$(MODELS),$(if $(filter all $(each) $(addprefix $(each)_,$(VARIANTS)) \
	$(BUILD)/$(each)/% $(BUILD)/datasets/$(call dataset,$(each))/%,$1),$(each))))
sources_of = $(foreach name,$(SOURCES) CAFFEMODEL DATASET $(LISTS) TEST_INPUT,$(if $(call path,$1,$(name)),--source $1_$(name)=$(call quoted,$(call path,$1,$(name)))))
%.reproduce: FORCE | $(HELPERS)
	@$(if $(call reproduced,$*),,$(error there is no $* to reproduce; make list shows what can be built))
	@'$(VENV)/bin/python' scripts/reproduce.py '$*' $(if $(JSON),--json) --build '$(BUILD)' --make '$(MAKE_COMMAND)' \
	  $(addprefix --makefile ,$(MAKEFILE_LIST)) --environment '$(VENV)' --environment '$(TOOLCHAIN)' \
	  $(foreach each,$(call reproduced,$*),$(call sources_of,$(each)))

list:
	@:$(foreach each,$(MODELS),$(info $(each): $(addprefix $(each)_,$(call get,$(each),VARIANTS))))

# ---------------------------------------------------------------------------------------------
# Help. Printing takes no process: nothing is built, not even an environment.

define help_text
make MODEL_VARIANT           build a model, for instance: make $(firstword $(MODELS))_$(firstword $(VARIANTS))
make MODEL, make all         every variant of a model's stanza; of all models
make list                    what can be built
make MODEL_VARIANT.key       what the keys of its stages are made of (JSON=1: all of it)
make MODEL_VARIANT.reproduce build it twice, under other conditions, and compare all bytes
make setup                   both environments; builds do it by themselves
make test-fast               the project's tests that need no toolchain, in under a minute
make test, make test-full    all of them; with those that take long
make lint                    ruff, the Makefile, shellcheck
make bench                   how long make takes, beside DVC and Snakemake with the same stages
make lock                    the lock files anew
make clean, make distclean   remove what was built; the environments too

Models (models.mk): $(MODELS)
Variants:           $(VARIANTS_$(CHIP)) (of $(CHIP); chips: $(CHIPS))

Knobs, as they are now:$(foreach each,$(KNOBS),$(newline)  $(each)=$($(each)))

In a stanza, or on the command line with the model's name before it (make $(firstword $(MODELS))_int8
$(firstword $(MODELS))_ONNX=~/best.onnx), with the default:$(foreach part,$(STANZA_PARTS),$(newline)$(newline) $(part):$(foreach each,$(STANZA_$(part)),$(newline)  <model>_$(each) = $(call default,<model>,$(each))))
endef

default = $(DEFAULT_$2)

.PHONY: help
help:
	@:$(info $(help_text))

# ---------------------------------------------------------------------------------------------
# The project itself

.PHONY: test test-fast test-full lint lock clean distclean
# A file at a time, so that what its tests share is made once.
PYTEST = '$(VENV)/bin/python' -m pytest --numprocesses auto --dist loadfile

test-fast: $(DEV)
	@$(PYTEST) -m 'not slow and not toolchain and not full'

test: $(DEV) $(TOOLS)
	@$(PYTEST) -m 'not full'

test-full: $(DEV) $(TOOLS)
	@$(PYTEST)

lint: $(DEV)
	@'$(VENV)/bin/python' -m ruff check .
	@'$(VENV)/bin/python' -m ruff format --check .
	@'$(VENV)/bin/shellcheck' scripts/toolchain_bin/* .ci/run
	@sh tests/lint_makefile.sh

# BENCH_MODEL: what is measured with; BENCH_ROUNDS: how often everything runs; ACCEPT: 1 puts the
# ratios that were measured in place of those in docs/bench.json, instead of comparing them.
BENCH_MODEL ?= tiny
BENCH_ROUNDS ?= 11
ACCEPT ?= 0
KNOBS += BENCH_VENV BENCH_MODEL BENCH_ROUNDS ACCEPT
.PHONY: bench
bench: $(HELPERS) $(BENCH) $(BENCH_MODEL)_int8
	@'$(VENV)/bin/python' scripts/bench.py $(BENCH_MODEL)_int8 --rounds $(BENCH_ROUNDS) --out '$(BUILD)/bench' --make '$(MAKE_COMMAND)' \
	  --venv '$(VENV)' --toolchain '$(TOOLCHAIN)' --rivals '$(BENCH_VENV)' --accepted docs/bench.json \
	  $(if $(filter 1,$(ACCEPT)),--accept)

# Every lock from its .in file. --upgrade is yours to add: make lock UPGRADE=--upgrade
COMPILE = cd requirements && '$(abspath $(VENV))/bin/uv' pip compile --quiet --no-config --generate-hashes \
	--no-emit-index-url --only-binary :all: --custom-compile-command 'make lock' $(UPGRADE)
UPGRADE ?=
lock: $(HELPERS)
	$(COMPILE) --universal --python-version 3.10 --override helpers.override helpers.in -o helpers.txt
	$(COMPILE) --universal --python-version 3.10 dev.in -o dev.txt
	$(COMPILE) --universal --python-version 3.10 --no-deps python310.in -o python310.txt
	$(COMPILE) --python-version 3.10 --python-platform x86_64-manylinux_2_35 \
	  --override tpu_mlir-1.7.override tpu_mlir-1.7.in -o tpu_mlir-1.7.txt
	$(COMPILE) --universal --python-version 3.10 --override bench.override bench.in -o bench.txt

clean:
	rm -rf '$(BUILD)'

distclean: clean
	rm -rf '$(VENV)' '$(TOOLCHAIN)' '$(BENCH_VENV)'
