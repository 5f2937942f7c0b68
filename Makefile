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
# STANZAS: the file of stanzas; all paths in it are seen from here.
STANZAS ?= models.mk
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
# MEMORY: what all stages that run at once may take, by default most of what there is.
MEMORY ?=
# REPRODUCIBLE: 0 goes on where the kernel can't give a tool the same addresses each time, and its
# results are other bytes each time.
REPRODUCIBLE ?= 1
# JSON: 1 has .key, .check, .info, .outputs, .detect, .reproduce, doctor, info, list and all print JSON, and nothing else on
# standard output.
JSON ?=
# LIST: a file with one target a line, that `make all` is to build instead; FILE: what `make info` tells of.
LIST ?=
FILE ?=
# TPU_MLIR_VERSION: which toolchain; requirements/tpu_mlir-<version>.txt is its lock.
TPU_MLIR_VERSION ?= 1.7
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

KNOBS := STANZAS CHIP DEVICE BUILD VALIDATE SOURCE_DATE_EPOCH V WHY CACHE_DIR CACHE CACHE_MAX MEMORY REPRODUCIBLE \
	TPU_MLIR_VERSION PYTHON PYTHON310 VENV TOOLCHAIN EXTRAS EXTRA TORCH_PYTHON

# What a stanza may assign, with its default, by what it is for. Names are those of tpu_mlir's flags;
# docs/variables.md tells what each means, and which flags have no variable and why.
STANZA_PARTS := network input dataset calibrate qtable deploy compare

STANZA_network := ONNX PT TORCHSCRIPT PB SAVEDMODEL PADDLE TFLITE PROTOTXT CAFFEMODEL URL ALLOW_PICKLE \
	INPUT_SHAPES INPUT_TYPES OUTPUTS DEVICE ONNX_SIM ADD_POSTPROCESS LABELS VARIANTS SILENCE
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
DEFAULT_ALLOW_PICKLE         = 0
DEFAULT_INPUT_SHAPES         =
DEFAULT_INPUT_TYPES          =
DEFAULT_OUTPUTS              = auto
DEFAULT_DEVICE               = $(DEVICE)
DEFAULT_ONNX_SIM             =
DEFAULT_ADD_POSTPROCESS      =
DEFAULT_LABELS               =
DEFAULT_VARIANTS             = int8
DEFAULT_SILENCE              =

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

STANZA_qtable := QTABLE_INPUT_NUM EXPECTED_COS MIN_LAYER_COS FP_TYPE GLOBAL_COMPARE_LAYERS QTABLE FLOAT_LAYERS
DEFAULT_QTABLE_INPUT_NUM     = 10
DEFAULT_EXPECTED_COS         = 0.99
DEFAULT_MIN_LAYER_COS        = 0.99
DEFAULT_FP_TYPE              = auto
DEFAULT_GLOBAL_COMPARE_LAYERS =
DEFAULT_QTABLE               =
DEFAULT_FLOAT_LAYERS         =

STANZA_deploy := FUSE_PREPROCESS CUSTOMIZATION_FORMAT ALIGNED_INPUT QUANT_INPUT QUANT_OUTPUT QUANT_INPUT_LIST \
	QUANT_OUTPUT_LIST IGNORE_F16_OVERFLOW OP_DIVIDE OPT DISABLE_LAYER_GROUP DYNAMIC ADDR_MODE NUM_CORE NUM_DEVICE \
	GROUP_BY_CORES COMPRESS_MODE MODEL_VERSION
DEFAULT_FUSE_PREPROCESS      = $(if $(filter $(UNFUSED),$(call get,$1,DEVICE)),0,$(on_camera))
DEFAULT_CUSTOMIZATION_FORMAT = $(if $(filter $(PLANAR),$(call get,$1,DEVICE)),RGB_PLANAR,RGB_PACKED)
DEFAULT_ALIGNED_INPUT        = $(if $(aligned_crashes),0,1)
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
DEFAULT_F16_TOLERANCE        = $(call tolerance,$1,0.99$(comma)0.99)
DEFAULT_F32_TOLERANCE        = $(call tolerance,$1,0.99$(comma)0.99)
DEFAULT_MODEL_TOLERANCE      = 0.99,0.90
DEFAULT_EXCEPTS              =
DEFAULT_COMPARE_ALL          = 0
DEFAULT_SKIP_VALIDATION      = 0

# A general tolerance holds for every variant that has none of its own.
tolerance = $(or $(call get,$1,TOLERANCE),$2)
# The cv18x sit in cameras, whose pictures go into the model as they come. Tensors have no such form.
on_camera = $(if $(filter cvimodel,$(MODEL)),$(if $(call tensors,$1),0,1),0)
# What the devices' profiles say of the input; Make reads no JSON.
UNFUSED := maixcam
PLANAR  := milkv
# The chips that a device has, and what the file is that goes with a model there: as their profiles say.
CHIPS_recamera    := cv181x
CHIPS_maixcam     := cv181x
CHIPS_milkv       := cv180x cv181x
CHIPS_none        :=
SIDE_CAR_recamera := json
SIDE_CAR_maixcam  := mud
SIDE_CAR_milkv    := contract
SIDE_CAR_none     :=
SIDE_CARS         := $(sort $(foreach each,recamera maixcam milkv,$(SIDE_CAR_$(each))))
# How a model gets there: $1 its file, $2 what goes with it.
ONTO_recamera = '  onto a reCamera: scp $1 recamera@192.168.42.1:/userdata/Models/model.cvimodel' \
	'                   scp $2 recamera@192.168.42.1:/userdata/Models/model.json'
ONTO_maixcam  = '  onto a MaixCAM: scp $1 $2 root@maixcam.local:/root/models/'
ONTO_milkv    = '  onto a Milk-V Duo: scp $1 root@192.168.42.1:/root/'

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
export V WHY JSON CACHE_DIR CACHE CACHE_MAX MEMORY VENV PYTHON310 EXTRAS
# Stages start too often to compile their Python each time, which some containers ask for.
export PYTHONDONTWRITEBYTECODE :=

empty :=
space := $(empty) $(empty)
comma := ,
define newline


endef

# What each chip computes in; a mixed model only where the search for its float layers knows the chip.
# For a cv18x, tpu_mlir takes F16 and silently writes BF16. Version 1.7 takes --asymmetric and writes the
# same as without; ASYMMETRIC_<version>: the chips whose asymmetric models agree with their emulator.
ASYMMETRIC_1.7    :=
ASYMMETRIC_1.30.2 := bm1684x
ASYMMETRIC := $(if $(filter $(CHIP),$(ASYMMETRIC_$(TPU_MLIR_VERSION))),int8_asym)
CV18X := cv180x cv181x cv182x cv183x
$(foreach each,$(CV18X),$(eval VARIANTS_$(each) := int8 mix bf16))
VARIANTS_bm1684x := int8 mix bf16 f16 f32
VARIANTS_bm1684  := int8 mix f32
VARIANTS_bm1688  := int8 bf16 f16 f32
VARIANTS_cv186x  := int8 bf16 f16 f32
VARIANTS_bm1690  := int8 bf16 f16 f32
CHIPS    := $(CV18X) bm1684x bm1684 bm1688 cv186x bm1690
VARIANTS := int8 int8_asym mix bf16 f16 f32
# What a model for the chip is called. On the command line of `convert` the word is the network.
given_model := $(if $(filter command,$(origin MODEL)),$(MODEL))
override MODEL := $(if $(filter $(CHIP),$(CV18X)),cvimodel,bmodel)
MODELS   :=
ifeq ($(filter $(CHIP),$(CHIPS)),)
$(error CHIP=$(CHIP) is not known; known are: $(CHIPS))
endif

DEVICES := $(sort $(patsubst devices/%.json,%,$(wildcard devices/*.json)))
ifneq ($(words $(filter $(DEVICE),$(DEVICES))),$(if $(DEVICES),1,0))
$(error DEVICE=$(DEVICE) is not known; known are: $(DEVICES))
endif

# The toolchains that there are, and what differs between them: docs/toolchains.md.
TOOLCHAINS := $(patsubst requirements/tpu_mlir-%.txt,%,$(wildcard requirements/tpu_mlir-*.txt))
ifneq ($(words $(filter $(TPU_MLIR_VERSION),$(TOOLCHAINS))),$(if $(TOOLCHAINS),1,0))
$(error TPU_MLIR_VERSION=$(TPU_MLIR_VERSION) has no lock in requirements/; these have: $(TOOLCHAINS))
endif
# LACKS_<version>: variants that it has no tool for.
LACKS_1.7    :=
LACKS_1.30.2 := mix
# ALIGNED_CRASHES_<version>: formats with which its own run of a model with ALIGNED_INPUT, which the
# emulator's is compared with, dies. The compiled model is right.
ALIGNED_CRASHES_1.7    :=
ALIGNED_CRASHES_1.30.2 := RGB_PACKED BGR_PACKED
# FORMS_ABORT_<version>: pictures' forms of which its compiler aborts.
FORMS_ABORT_1.7    :=
FORMS_ABORT_1.30.2 := YUV_NV21 YUV420_PLANAR
aligned_crashes = $(if $(filter 1,$(on_camera)),$(ALIGNED_CRASHES_$(TPU_MLIR_VERSION)))
aligned_dies = $(call validating,$(and $(call fused,$1),$(filter 1,$(call get,$1,ALIGNED_INPUT)),$(filter $(aligned_crashes),$(call get,$1,CUSTOMIZATION_FORMAT))))
LACKS := $(LACKS_$(TPU_MLIR_VERSION))
BUILT := $(filter-out $(LACKS),$(VARIANTS_$(CHIP))) $(ASYMMETRIC)

# $(call get,MODEL,NAME): what the stanza says, or the default.
get = $(strip $(if $(filter undefined,$(origin $1_$2)),$(DEFAULT_$2),$($1_$2)))
# $(call path,MODEL,NAME): the same for a file or folder. The shell may have left a ~ in it, and a
# program would take a - at its beginning for an option. Spaces, which Make takes for separators,
# become `?` until it is used in one of these two ways:
path            = $(patsubst -%,./-%,$(patsubst ~/%,$(HOME)/%,$(subst $(space),?,$(call get,$1,$2))))
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
	@echo >&2 $(call shell_word,tpumake: there is no $@$(if $(named_by),$(comma) which $(named_by) names); make list shows what can be built)
	@exit 2
named_by = $(if $(filter $@,$(image)),IMAGE)$(strip $(foreach each,$(MODELS),$(foreach name,$(FILES),$(if \
	$(filter $@,$(call file_of,$(each),$(name))),$(each)_$(name)))))
# The variables that name one file or folder of the user's, and what one names.
FILES   = $(SOURCES) CAFFEMODEL TEST_INPUT QTABLE LABELS
file_of = $(filter-out none,$(call path,$1,$2))

# ---------------------------------------------------------------------------------------------
# Set-up: two environments, each made once from its lock

HELPERS        := $(VENV)/ready
HELPERS_FROM   := requirements/helpers.txt scripts/setup_venv.py
DEV            := $(VENV)/ready-dev
DEV_FROM       := requirements/dev.txt
TOOLCHAIN_HERE := $(TOOLCHAIN)/$(TPU_MLIR_VERSION)
TOOLS          := $(TOOLCHAIN_HERE)/ready
TOOLS_FROM     := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/setup_toolchain.py scripts/assemble_python.py \
	$(wildcard scripts/toolchain_stand_ins/*.py)
# An environment holds a copy of what it was made from. It is made anew when that has changed, by
# content and not by time, so that one in a container's image serves every checkout; or when the
# Python that it was made with is gone.
outdated = $(call differs,$1,$(foreach each,$2,$(file <$(each)))) $(if $(realpath $3),,FORCE)

$(HELPERS): $(call outdated,$(HELPERS),$(HELPERS_FROM),$(VENV)/bin/python)
	@$(if $(JSON),>&2) $(PYTHON) scripts/setup_venv.py '$(VENV)' $(firstword $(HELPERS_FROM)) && cat $(HELPERS_FROM) > '$@'

$(DEV): $(call outdated,$(DEV),$(DEV_FROM),$(VENV)/bin/python) $(HELPERS)
	@$(PYTHON) scripts/setup_venv.py --add '$(VENV)' $(DEV_FROM) && cat $(DEV_FROM) > '$@'

$(TOOLS): $(call outdated,$(TOOLS),$(TOOLS_FROM),$(TOOLCHAIN_HERE)/bin/python3) | $(HELPERS)
	@'$(VENV)/bin/python' scripts/setup_toolchain.py --version $(TPU_MLIR_VERSION) '$(@D)' && cat $(TOOLS_FROM) > '$@'

# Extras: packages for the toolchain's Python that only some networks need.
KNOWN_EXTRAS := $(patsubst requirements/extra-%.txt,%,$(wildcard requirements/extra-*.txt))
extra_ready = $(EXTRAS)/$1/ready
extra_from  = requirements/extra-$1.txt scripts/setup_extra.py scripts/tpumake/elf_stand_in.py
$(EXTRAS)/%/ready: $$(call outdated,$$(call extra_ready,$$*),$$(call extra_from,$$*),$(EXTRAS)/$$*/bin/python3) | $(HELPERS) $(TOOLS)
	@'$(VENV)/bin/python' scripts/setup_extra.py '$*' '$(@D)' --python '$(TOOLCHAIN_HERE)/bin/python3' && \
	  cat $(call extra_from,$*) > '$@'
ifneq ($(filter-out $(KNOWN_EXTRAS),$(EXTRA)),)
$(error EXTRA=$(EXTRA): there is no $(filter-out $(KNOWN_EXTRAS),$(EXTRA)); there are: $(KNOWN_EXTRAS))
endif

.PHONY: setup
setup: $(HELPERS) $(TOOLS) $(foreach each,$(EXTRA),$(call extra_ready,$(each)))

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
stage = @$(if $(JSON),>&2) $(HOST_PYTHON) -S scripts/run_stage.py --build '$(BUILD)' --make '$(MAKE_COMMAND)' --model='$1' --stage
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
	$(if $(filter 0,$(REPRODUCIBLE)),--env REPRODUCIBLE=0,--same-addresses) -- '$(TOOLCHAIN_HERE)/run' $(if $2,with_extra $2) $1.py
extra_code = $(if $1,requirements/extra-$1.txt scripts/toolchain_bin/with_extra \
	$(sort $(wildcard $(addprefix scripts/stand_ins/$1/,*.py */*.py))))
# $(call extra,FRAMEWORK): an importer of ours, in the environment of its framework.
extra     = $(if $(call extra_own,$1),--env PYTHON='$(call extra_own,$1)',--needs '$(call extra_ready,$1)') \
	$(call code,$(CODE_import_$1)) --top -- '$(or $(call extra_own,$1),$(EXTRAS)/$1/run)' scripts/import_$1.py
extra_own = $(if $(filter torch,$1),$(TORCH_PYTHON))
# What does a stage's work is part of its key, by content, and a prerequisite.
code = $(foreach each,$1,--code $(each))
library = $(addprefix scripts/tpumake/,$(addsuffix .py,$1))
LOCK := requirements/helpers.txt
CODE_preflight := $(LOCK) scripts/preflight.py schemas/stanza.schema.json $(wildcard devices/*.json scripts/tpumake/preflight/*.py \
	scripts/tpumake/preflight/*.json scripts/tpumake/downgrade/*.py) \
	$(call library,onnx_io detection_head devices static_shapes labels pictures samples shapes npz amounts)
CODE_normalize_dataset := $(LOCK) scripts/normalize_dataset.py $(call library,datasets lists pictures samples shapes npz)
CODE_check_tflite := scripts/check_tflite.py $(call library,tflite shapes)
CODE_check_caffe := $(LOCK) scripts/check_caffe.py $(call library,caffe shapes)
CODE_onnx_downgrade := $(LOCK) scripts/onnx_downgrade.py $(call library,amounts bounded_run memory onnx_io detection_head devices \
	static_shapes samples shapes npz pictures) $(wildcard scripts/tpumake/downgrade/*.py) $(addprefix devices/,$(addsuffix .json,$(DEVICES)))
CODE_run_calibration := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt $(call library,settling cvimodel bmodel)
CODE_merge_qtable := $(LOCK) scripts/merge_qtable.py
CODE_run_qtable := $(CODE_run_calibration) scripts/toolchain_bin/dot
CODE_model_transform := $(CODE_run_calibration) $(LOCK) scripts/toolchain_bin/npz_tool.py scripts/npz_compare.py \
	$(call library,npz npz_compare similarity)
CODE_model_deploy := $(CODE_model_transform)
CODE_letterbox_picture := $(LOCK) scripts/letterbox_picture.py $(call library,letterbox network_input pictures)
CODE_run_onnx := $(LOCK) scripts/run_onnx.py $(call library,amounts bounded_run memory detections labels network_input onnx_io pictures)
CODE_check_contract := $(LOCK) scripts/check_contract.py $(call library,contract decoders side_car labels model_info \
	cvimodel_reader bmodel_reader flat_tables keys)
CODE_lower_network := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/toolchain/lower_network.py
CODE_run_network := requirements/tpu_mlir-$(TPU_MLIR_VERSION).txt scripts/toolchain/run_network.py
CODE_import_torch := requirements/extra-torch.txt scripts/import_torch.py $(call library,importing shapes)
CODE_import_tensorflow := requirements/extra-tensorflow.txt scripts/import_tensorflow.py $(call library,importing shapes)
CODE_import_paddle := requirements/extra-paddle.txt scripts/import_paddle.py $(call library,importing shapes)

# Writes a file without a process, and nothing under `make -n`.
write = $(if $(findstring n,$(firstword -$(MAKEFLAGS))),,$(file >$1,$2))
# A stage's parameters, which files it takes and which code does its work, are a file that it depends on. That is written only
# when they differ from what it holds, so changed parameters are newer than what others made.
parameters = $(strip $(if $(filter datasets,$m),$(call set_flags,$(call set_user,$(@F:.parameters=))) $(CODE_normalize_dataset),$(call $(@F:.parameters=)_parameters,$m)))
$(BUILD)/%.parameters: $$(call differs,$$@,$$(parameters)) | $$(@D)/
	@:$(call write,$@,$(parameters))

# check: all that can be known before the first tool runs: the stanza, the network, some of the
# pictures. Things of the machine are no part of a key; `make X.check` looks at those, too.
json = "$(subst ",\",$(subst \,\\,$1))"
assigned = $(sort $(filter-out $(call own,$1) $(addsuffix _%,$(filter $1_%,$(MODELS))) $(addprefix $1_,$(filter-out $(ordered),$(SOURCES))),$(filter $1_%,$(.VARIABLES))))
stanza_parameters = {$(foreach each,$(call assigned,$1),$(call json,$(each:$1_%=%)): $(call json,$(strip $($(each)))),)"model": "$1", "plan": $(plan)}
CHECKED := INPUT_SHAPES OUTPUTS MEAN SCALE PIXEL_FORMAT CHANNEL_FORMAT FUSE_PREPROCESS QUANT_OUTPUT INPUT_NUM DATA_LIST URL \
	VARIANTS SILENCE
plan = {"chip": "$(CHIP)", "version": "$(TPU_MLIR_VERSION)", "device": "$(device)", "kind": "$(or $(kind),ONNX)", \
	"source": $(call json_path,$(source)), "labels": $(call json_path,$(call file_of,$1,LABELS)), \
	"test_inputs": $(call json_path,$(if $(call get,$1,TEST_INPUT),$(test_files))), \
	"validating": "$(call validating,1)", "dataset": $(call json_path,$(call path,$1,$(samples))), \
	"counts": {$(call json_items,$(foreach each,$(sort $(suffix $(listing))),$(call json_item,$(each),$(words $(filter %$(each),$(listing))))))}, \
	"refused": {$(call json_items,$(foreach each,$(VARIANTS),$(call json_item,$(each),$(call impossible,$1,$(each)))))}, \
	"values": {$(call json_items,$(foreach each,$(CHECKED),$(call json_item,$(each),$(call get,$1,$(each)))))}}
# Several paths are a line each. In items spaces are `?`, since they separate them.
json_path  = "$(subst ?,$(space),$(subst $(space),\n,$(subst ",\",$(subst \,\\,$(strip $1)))))"
json_item  = "$1":$(subst $(space),?,$(call json,$2))
json_items = $(subst ?,$(space),$(subst $(space),$(comma) ,$(strip $1)))
# The files of the dataset, listed once; names alone, of which a few are looked into.
listing = $(if $(filter undefined,$(origin listing_of_$1)),$(eval listing_of_$1 := $$(foreach each,$$(call within,$$(call path,$1,$$(samples))),$$(if $$(suffix $$(each)),$$(each)))))$(listing_of_$1)
# Names with spaces fall apart into words that are no files: those aren't looked into.
looked_into = $(wildcard $(wordlist 1,$2,$(call plain,$(filter-out %.json %.txt %.md %.yaml %.xml %.csv,$(listing)))))
# What is one file can be looked into.
one_file = $(if $(filter SAVEDMODEL PADDLE,$(kind)),,$(source))
$(BUILD)/%/checked: $(BUILD)/%/stanza.parameters $(CODE_preflight) $$(call as_prerequisite,$$(call one_file,$$*)) \
		$$(call looked_into,$$*,3) $$(if $$(call path,$$*,LABELS),$$(call as_prerequisite,$$(call file_of,$$*,LABELS))) \
		$$(call validating,$$(if $$(call get,$$*,TEST_INPUT),$$(call test_prerequisite,$$*)))
	$(call stage,$*) stanza --label check --log '$(BUILD)/$*/logs/stanza.log' --out '$@' --in '$<' \
	  $(call in_numbered,network,$(call one_file,$*)) $(call in_numbered,sample,$(call looked_into,$*,3)) \
	  $(call in_numbered,labels,$(call file_of,$*,LABELS)) \
	  $(call validating,$(if $(call get,$*,TEST_INPUT),$(call in_numbered,test,$(call test_files,$*)))) \
	  $(call helper,preflight) '$<' '{work}/$(@F)' $(call samples_of,$*,3)
in_numbered = $(foreach each,$(join $(patsubst %,$1%=,$(wordlist 1,$(words $2),$(NUMBERS))),$2),--in $(call quoted,$(each)))
samples_of = $(foreach each,$(call looked_into,$1,$2),--sample $(call quoted,$(each)))
# X.check, X being a model (all of its variants) or one variant of it; doctor: the machine, and all models.
%.check: $$(addprefix $(BUILD)/,$$(addsuffix /stanza.parameters,$$(call model_of,$$*))) FORCE | $(HELPERS)
	$(if $(call model_of,$*),,$(error there is no $* to check; make list shows what can be built))
	@'$(VENV)/bin/python' scripts/preflight.py '$<' --target '$*' $(if $(JSON),--json) --build '$(BUILD)' --toolchain '$(TOOLCHAIN_HERE)' \
	  $(addprefix --variant ,$(if $(filter $(MODELS),$*),$(call get,$*,VARIANTS),$(call variant_of,$*))) $(call samples_of,$(call model_of,$*),24)
.PHONY: doctor
doctor: $$(patsubst %,$(BUILD)/%/stanza.parameters,$$(MODELS))
	@$(HOST_PYTHON) scripts/doctor.py --build '$(BUILD)' --toolchain '$(TOOLCHAIN_HERE)' --venv '$(VENV)' $(if $(JSON),--json) \
	  $(foreach each,$(KNOWN_EXTRAS),--extra '$(dir $(call extra_ready,$(each)))') $(MODELS:%='$(BUILD)/%/stanza.parameters')

# dataset: pictures of any kind, or tensors, in the form and number that the calibration takes. Of a
# folder, or DATASET's list, some are chosen; of the other two lists the first ones are taken, in their order.
# $* is the set's name.
LISTS      := DATA_LIST TUNE_LIST
set        = $(patsubst -%,%,$(subst ',_,$(subst ?,_,$(subst /,-,$(patsubst datasets/%,%,$(patsubst %/,%,$(call path,$1,$2)))))))$(if $(filter $2,$(LISTS)),-listed)$(patsubst %,-%,$(filter-out 100,$(call set_number,$1,$2)))
set_number = $(call get,$1,$(if $(filter TUNE_LIST,$2),TUNE_NUM,INPUT_NUM))
samples    = $(if $(call get,$1,DATA_LIST),DATA_LIST,DATASET)
dataset    = $(call set,$1,$(call samples,$1))
tune       = $(if $(call get,$1,TUNE_LIST),$(call set,$1,TUNE_LIST))
# Whose set it is, and from which variable: MODEL:NAME.
set_user = $(firstword $(foreach each,$(MODELS),$(foreach name,DATASET $(LISTS),$(if $(call get,$(each),$(name)),$(if $(filter $1,$(call set,$(each),$(name))),$(each):$(name))))))
set_path = $(call path,$(word 1,$(subst :, ,$1)),$(word 2,$(subst :, ,$1)))
# The folder or list, and what is in it. Names with spaces fall apart into words that are no files; where
# there are such, the stage looks at the contents each time.
pictures = $(call files,$(call within,$1))
within   = $(if $(wildcard $(addsuffix /.,$(patsubst %/,%,$1))),$(wildcard $1 $(patsubst %/,%,$1)/* $(patsubst %/,%,$1)/*/* $(patsubst %/,%,$1)/*/*/*),$(wildcard $1) $(call listed,$1))
listed   = $(foreach each,$(if $(wildcard $1),$(subst $(comma), ,$(file <$1))),$(if $(filter /%,$(each)),$(each),$(dir $1)$(each)))
files    = $(call files_of,$(wildcard $(call plain,$1)),$1)
files_of = $1 $(if $(filter $(words $1),$(words $2)),,FORCE)
# Among prerequisites, a % is the stem, what comes after a | only orders, and patterns are looked up again.
plain    = $(if $(call odd,$1),$(foreach each,$1,$(if $(call odd,$(each)),,$(each))),$1)
odd      = $(strip $(foreach sign,% | * ? [,$(findstring $(sign),$1)))
# .npz or .npy where the samples are tensors; looked up once, for that reads folders.
tensors  = $(if $(filter undefined,$(origin tensors_of_$1)),$(eval tensors_of_$1 := $$(firstword $$(filter .npz .npy,$$(suffix $$(call within,$$(call path,$1,$(call samples,$1))))))))$(tensors_of_$1)
set_flags = $(call quoted,$(call set_path,$1)) --count $(call set_number,$(word 1,$(subst :, ,$1)),$(word 2,$(subst :, ,$1))) \
	$(if $(filter $(LISTS),$(word 2,$(subst :, ,$1))),--in-order) \
	$(if $(call tensors,$(word 1,$(subst :, ,$1))),$(call option,$(word 1,$(subst :, ,$1)),INPUT_SHAPES,--input-shapes))
$(BUILD)/datasets/%/manifest.json: $(BUILD)/datasets/%.parameters $(CODE_normalize_dataset) \
		$$(call pictures,$$(call set_path,$$(call set_user,$$*)))
	$(call stage,$*) dataset --log '$(BUILD)/datasets/logs/$*.log' --out '$(@D)' $(if $(filter-out FORCE,$?),,--keep-times) \
	  --in source=$(call quoted,$(call set_path,$(call set_user,$*))) --lists source \
	  $(call helper,normalize_dataset) $(call set_flags,$(call set_user,$*)) '{work}/$*' --progress

# What a network comes as, by the stanza variable that names its file or folder: as ONNX; as what is
# made into ONNX first; as what tpu_mlir reads by itself. A TFLite network does so only if it is
# quantised and the chip takes its zero points (the BM1690's emulator then disagrees): tpu_mlir gives
# float ones no limit for ReLU6, and writes F32 for them whatever it is asked for.
SOURCES := ONNX PT PB SAVEDMODEL PADDLE TFLITE PROTOTXT TORCHSCRIPT
DIRECT  := PROTOTXT TORCHSCRIPT $(if $(filter bm1684x bm1688 cv186x,$(CHIP)),TFLITE)
FITS_PROTOTXT    := 1
FITS_TORCHSCRIPT := 1
FITS_TFLITE       = $(filter 1,$(quantised))
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
direct    = $(foreach each,$(filter $(DIRECT),$(call kind,$1)),$(if $(call FITS_$(each),$1),$(each)))
# Whether a TFLite network is quantised: 1 or 0. Only the file says; it is looked into once. What is
# no TFLite network at all may pass for one: the check then says what is wrong.
quantised = $(or $(quantised_$1),$(eval quantised_$1 := $(shell $(HOST_PYTHON) -S scripts/check_tflite.py --quantised $(call quoted,$(call source,$1)) 2>/dev/null || echo 1))$(quantised_$1))
framework = $(FRAMEWORK_$(call kind,$1))
onnx      = $(if $(filter ONNX,$(call kind,$1)),$(call source,$1),$(BUILD)/$1/$1_imported.onnx)

# import: a network of another framework, as ONNX. Each framework is an environment of its own.
import_flags = $(call option,$1,INPUT_SHAPES,--input-shapes) $(if $(filter PT,$(call kind,$1)),$(call flag,$1,ALLOW_PICKLE,--allow-pickle))
import_parameters = $(call source,$1) $(import_flags) $(CODE_import_$(call framework,$1)) $(call extra_own,$(call framework,$1))
# SavedModels and Paddle's networks are folders.
in_folder = $(if $(filter SAVEDMODEL PADDLE,$(call kind,$1)),$(call pictures,$(call source,$1)))
$(BUILD)/%_imported.onnx: $$(call as_prerequisite,$$(call source,$$m)) $$(call in_folder,$$m) $(BUILD)/$$m/import.parameters \
		$$(CODE_import_$$(call framework,$$m)) | $(BUILD)/$$m/checked
	$(call stage,$m) import --log '$(BUILD)/$m/logs/import.log' --out '$@' \
	  --in source=$(call quoted,$(call source,$m)) \
	  $(call extra,$(call framework,$m)) $(call quoted,$(call source,$m)) '{work}/$(@F)' $(call import_flags,$m)

# downgrade: an ONNX that tpu_mlir's older onnx reads, with its head cut where the device's begins.
downgrade_flags = --verify $(if $(filter none,$(call get,$1,OUTPUTS)),,$(call option,$1,OUTPUTS,--outputs)) \
	$(if $(filter auto,$(call get,$1,OUTPUTS)),$(call option,$1,DEVICE,--device)) $(call option,$1,INPUT_SHAPES,--input-shapes)
downgrade_parameters = $(call onnx,$1) $(downgrade_flags) $(CODE_onnx_downgrade)
$(BUILD)/%_v8.onnx: $$(call as_prerequisite,$$(call onnx,$$m)) $(BUILD)/$$m/downgrade.parameters \
		$(CODE_onnx_downgrade) | $(BUILD)/$$m/checked
	$(call stage,$m) downgrade --log '$(BUILD)/$m/logs/downgrade.log' --out '$@' \
	  --in source=$(call quoted,$(call onnx,$m)) \
	  $(call helper,onnx_downgrade) $(call quoted,$(call onnx,$m)) '{work}/$(@F)' $(call downgrade_flags,$m)

# tflite, caffe: what tpu_mlir, or Caffe in it, stumbles over or passes over, told before.
CHECK_TFLITE   := tflite
CHECK_PROTOTXT := caffe
CHECK_TORCHSCRIPT :=
check_of    = $(foreach each,$(direct),$(CHECK_$(each)))
check_flags = $(call option,$1,INPUT_SHAPES,--input-shapes) --variable $1
tflite_parameters = $(call source,$1) $(check_flags) $(CODE_check_tflite)
caffe_parameters  = $(call source,$1) $(call path,$1,CAFFEMODEL) $(check_flags) $(CODE_check_caffe)
$(BUILD)/%/tflite: $$(call as_prerequisite,$$(call source,$$*)) $(BUILD)/%/tflite.parameters $(CODE_check_tflite) | $(BUILD)/%/checked
	$(call stage,$*) tflite --log '$(BUILD)/$*/logs/tflite.log' --out '$@' --in source=$(call quoted,$(call source,$*)) \
	  $(call helper,check_tflite) $(call check_flags,$*) $(call quoted,$(call source,$*)) '{work}/$(@F)'
$(BUILD)/%/caffe: $$(call as_prerequisite,$$(call source,$$*) $$(call path,$$*,CAFFEMODEL)) $(BUILD)/%/caffe.parameters \
		$(CODE_check_caffe) | $(BUILD)/%/checked
	$(call stage,$*) caffe --log '$(BUILD)/$*/logs/caffe.log' --out '$@' --in prototxt=$(call quoted,$(call source,$*)) \
	  --in caffemodel=$(call quoted,$(call path,$*,CAFFEMODEL)) $(call helper,check_caffe) $(call check_flags,$*) \
	  $(call quoted,$(call source,$*)) $(call quoted,$(call path,$*,CAFFEMODEL)) '{work}/$(@F)'

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
		$(BUILD)/$$m/transform.parameters $$(call test_prerequisite,$$m) $(CODE_model_transform) $$(call extra_code,$$(call reader,$$m)) \
		| $(BUILD)/$$m/checked $$(addprefix $(BUILD)/$$m/,$$(call check_of,$$m))
	$(call stage,$m) transform --log '$(BUILD)/$m/logs/transform.log' \
	  $(foreach each,$(call definition,$m),--in $(call quoted,$(each))) $(call test_input,$m) --out '$(BUILD)/$*.mlir' --out '$(BUILD)/$*_top_f32_all_weight.npz' \
	  $(foreach each,$(VALIDATED),--out $(subst %,$*,$(each))) --by-product '$(BUILD)/$*_top_outputs.npz' \
	  $(call tool_with,model_transform,$(call reader,$m)) --model_name $m --mlir $m.mlir $(call transform_flags,$m)

# calibrate: the range of every tensor over the pictures.
CALIBRATE_OPTIONS := INPUT_NUM TUNE_NUM HISTOGRAM_BIN_NUM
calibrate_flags = $(sample_flags) $(if $(tune),--tune_list tune.txt) $(call options,$1,$(CALIBRATE_OPTIONS)) \
	$(call option,$1,CALIBRATION_DEBUG_CMD,--debug_cmd)
calibrate_parameters = $(calibrate_flags) $(SOURCE_DATE_EPOCH) $(calibration_set) $(tune_set) $(CODE_run_calibration)
# A list where the order counts or a sample is several files; the stage writes it.
sample_flags = $(if $(or $(filter DATA_LIST,$(samples)),$(filter-out 1,$(files_of_sample))),--data_list dataset.txt,--dataset dataset)
tune_set = $(patsubst %,$(BUILD)/datasets/%/manifest.json,$(tune))
calibration_set = $(if $(call get,$1,$(samples)),$(BUILD)/datasets/$(call dataset,$1)/manifest.json,without_pictures/$1)
without_pictures/%: FORCE
	@echo >&2 'tpumake: $*_DATASET is not set; $*_TEST_INPUT, one picture, is enough where nothing is calibrated'
	@exit 2
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

# float: a table of the stanza's own in place of that one, none at all, or more layers for it.
FLOAT_bm1684x := F16
FLOAT_bm1684  := F32
float_mode  = $(or $(filter-out auto,$(call get,$1,FP_TYPE)),$(FLOAT_$(CHIP)),BF16)
float_table = $(or $(call file_of,$1,QTABLE),$(if $(call get,$1,QTABLE),,$(BUILD)/$1/$(CHIP)/$1_qtable))
float_flags = --mode $(float_mode) $(call option,$1,FLOAT_LAYERS,--float) $(if $(float_table),--table $(call quoted,$(float_table)))
float_parameters = $(float_flags) $(CODE_merge_qtable)
$(BUILD)/%_float_table: $(BUILD)/$$m/$$m_calib_table $$(call as_prerequisite,$$(call float_table,$$m)) \
		$(BUILD)/$$m/$(CHIP)/float.parameters $(CODE_merge_qtable)
	$(call stage,$m) float --log '$(BUILD)/$m/$(CHIP)/logs/float.log' --in '$<' \
	  $(if $(call float_table,$m),--in table=$(call quoted,$(call float_table,$m))) --out '$@' \
	  $(call helper,merge_qtable) '$<' '{work}/$(@F)' $(call float_flags,$m)
qtable = $(BUILD)/$1/$(CHIP)/$1$(if $(call get,$1,QTABLE)$(call get,$1,FLOAT_LAYERS),_float_table,_qtable)

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
	$(if $(already),$(if $(filter-out int8,$2),$(source) is quantised to INT8$(comma) which tpu_mlir would write under the name of $(call upper,$2); make $1_int8)), \
	$(if $(filter int8_asym,$2),$(if $(ASYMMETRIC),,tpu_mlir $(TPU_MLIR_VERSION) $(if $(ASYMMETRIC_$(TPU_MLIR_VERSION)),makes no asymmetric model for $(CHIP) that computes what it should,takes --asymmetric and then writes the same model as without): make $1_int8)), \
	$(if $(filter $2,$(LACKS)),tpu_mlir $(TPU_MLIR_VERSION) has no tool for $(call upper,$2) that tpumake knows; make $(addprefix $1_,$(BUILT))), \
	$(if $(filter $2,$(BUILT)),,$(CHIP) does not compute in $(call upper,$2)$(if $(filter f16,$2),$(if $(filter cvimodel,$(MODEL)),$(comma) and tpu_mlir would write BF16 under that name)); make $(addprefix $1_,$(BUILT))), \
	$(if $(fused),$(or $(call impossible_form,$1,$2,$(form)), \
	$(call validating,$(if $(filter .jpg,$(test_kind)),,a model with FUSE_PREPROCESS = 1 is compared on pictures$(comma) and $1_TEST_INPUT names none: give it some$(comma) or VALIDATE=0)))), \
	$(if $(aligned_dies),tpu_mlir $(TPU_MLIR_VERSION) dies of comparing a model with ALIGNED_INPUT=1 and $(form): $1_ALIGNED_INPUT=0$(comma) or VALIDATE=0), \
	$(if $(filter 1,$(call get,$1,DYNAMIC)),$(if $(filter cvimodel,$(MODEL)),$(CHIP) runs no models of DYNAMIC = 1)))
impossible_form = $(or $(if $(filter $(FORMS_ABORT_$(TPU_MLIR_VERSION)),$3),tpu_mlir $(TPU_MLIR_VERSION) aborts at CUSTOMIZATION_FORMAT = $3: another form$(comma) or TPU_MLIR_VERSION=1.7), \
	$(if $(filter %_RAW,$3),$(or \
	$(if $(filter bmodel,$(MODEL)),,tpu_mlir can't compile CUSTOMIZATION_FORMAT = $3 for $(CHIP)), \
	$(if $(filter f16 bf16 f32,$2),,tpu_mlir can't compile CUSTOMIZATION_FORMAT = $3 in $(call upper,$2)), \
	$(call validating,tpu_mlir makes no test pictures for CUSTOMIZATION_FORMAT = $3: VALIDATE=0))), \
	$(if $(filter rgba,$(call get,$1,PIXEL_FORMAT)),$(call validating,tpu_mlir makes no test pictures for PIXEL_FORMAT = rgba with FUSE_PREPROCESS = 1: VALIDATE=0)))
# tpu_mlir has a fixed tolerance for the emulator against the quantised network, a lower one for mix;
# here it is a variable.
model_tolerance = $(if $(filter mix$(origin $1_MODEL_TOLERANCE),$2undefined),0.99$(comma)0.85,$(call get,$1,MODEL_TOLERANCE))
deploy_parameters = $(deploy_flags) $(filter-out %_calib_table,$(calibrated)) $(SOURCE_DATE_EPOCH) $(call validating,$(test_files) $(model_tolerance)) $(CODE_model_deploy) $(referring) $(call extra_code,$(referrer))
# A network that comes quantised is not calibrated, and stays INT8 whatever tpu_mlir is told.
already    = $(filter TFLITE,$(direct))
calibrated = $(if $(already),,$(strip $(if $(filter int8 int8_asym mix,$2),$(BUILD)/$1/$1_calib_table) $(if $(filter mix,$2),$(qtable))))
tables = $(foreach each,$(calibrated),--in '$(subst _float_table,_qtable,$(notdir $(each)))=$(each)')
# tpu_mlir runs a quantised network only when it is compiled; what that is compared with comes from
# the network itself.
referring  = $(if $(already),$(definition))
referrer   = $(if $(already),$(reader))
fused = $(filter 1,$(call get,$1,FUSE_PREPROCESS))
upper = $(subst f,F,$(subst int,INT,$(subst _asym,_ASYM,$(subst bf,BF,$(subst mix,MIX,$1)))))
$(foreach each,$(VARIANTS),$(eval $(each)_parameters = $$(call deploy_parameters,$$1,$(each))))
$(BUILD)/%.$(MODEL): $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz \
		$(BUILD)/$$m/$(CHIP)/$$v.parameters $$(call calibrated,$$m,$$v) \
		$$(call test_prerequisite,$$m) $(call validating,$(BUILD)/$$m/$$m_in_f32.npz) $(CODE_model_deploy) \
		$$(call extra_code,$$(call referrer,$$m)) | possible-$$m_$$v
	$(eval built_$m_$v := 1)$(if $(call doubtful,$m),$(info $m: $(call doubtful,$m)))
	$(call stage,$m) deploy --label $v --log '$(BUILD)/$m/$(CHIP)/logs/$v.log' --in '$<' --in '$(word 2,$^)' \
	  $(call tables,$m,$v) $(foreach each,$(call referring,$m),--in $(call quoted,$(each))) $(if $(call fused,$m),$(call test_input,$m)) \
	  $(call validating,--in $m_test.npz='$(BUILD)/$m/$m_in_f32.npz') --out '$@' \
	  $(call validating,--spare '$(BUILD)/$m/$m_top_outputs.npz' '$(BUILD)/$m/logs/transform.key') \
	  --env TPUMAKE_MODEL_TOLERANCE=$(call model_tolerance,$m,$v) --libc-matters \
	  $(call tool_with,model_deploy,$(call referrer,$m)) --mlir $m.mlir --model $(@F) $(call deploy_flags,$m,$v)

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
define contract
$(BUILD)/%.$1: $(BUILD)/%.cvimodel $(BUILD)/$$$$m/$(CHIP)/contract.parameters $$$$(call as_prerequisite,$$$$(call names,$$$$m)) \
		$$$$(wildcard devices/$$$$(call device,$$$$m).json) $(CODE_check_contract)
	$$(eval built_$$m_$$v := 1)
	$$(call stage,$$m) contract --untimed --log '$(BUILD)/$$m/$(CHIP)/logs/$$v.contract.log' --in '$$<' --in device='devices/$$(call device,$$m).json' \
	  $$(if $$(call names,$$m),--in names=$$(call quoted,$$(call names,$$m))) --out '$$@' --refuse '$$<' \
	  $$(call helper,check_contract) '$$<' '{work}/$$(@F)' $$(call contract_flags,$$m) $$(call feeding_flags,$$m)
endef
$(foreach each,$(SIDE_CARS),$(eval $(call contract,$(each))))

# ---------------------------------------------------------------------------------------------
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
$(BUILD)/%.picture.png: $(BUILD)/%.mlir $$(call as_prerequisite,$$(image)) $(BUILD)/$$m/picture.parameters $(CODE_letterbox_picture)
	$(call stage,$m) picture --log '$(BUILD)/$m/logs/picture.log' --out '$@' --in '$<' --in picture=$(call quoted,$(image)) \
	  $(call helper,letterbox_picture) $(call quoted,$(image)) '{work}/$(@F)' --network '$<' $(call picture_flags,$m)

# onnx: the network as it came.
labels = $(call option,$1,LABELS,--labels)
onnx_parameters = $(call onnx,$1) $(labels) $(CODE_run_onnx)
$(BUILD)/%.onnx.npz: $(BUILD)/%.picture.png $(BUILD)/%.mlir $$(call as_prerequisite,$$(call onnx,$$m)) \
		$$(call as_prerequisite,$$(call path,$$m,LABELS)) $(BUILD)/$$m/onnx.parameters $(CODE_run_onnx)
	$(call stage,$m) onnx --log '$(BUILD)/$m/logs/onnx.log' --out '$@' --in '$<' --in '$(word 2,$^)' \
	  --in source=$(call quoted,$(call onnx,$m)) $(if $(call path,$m,LABELS),--in labels=$(call quoted,$(call path,$m,LABELS))) \
	  $(call helper,run_onnx) $(call quoted,$(call onnx,$m)) '$<' '{work}/$(@F)' --input '$(word 2,$^)' $(call labels,$m)

# run: tpu_mlir's float network in its interpreter.
$(BUILD)/%.float.npz: $(BUILD)/%.mlir $(BUILD)/%_top_f32_all_weight.npz $(BUILD)/%.picture.png $(CODE_run_network)
	$(call stage,$m) run --label 'float mlir' --log '$(BUILD)/$m/logs/float.log' --out '$@' --in '$<' --in '$(word 2,$^)' \
	  --in picture.png='$(word 3,$^)' $(call inside,run_network) --network $m.mlir --model $m.mlir --picture picture.png $(@F)

# lower: the chip's operations and precision, which model_deploy makes first and throws away. Of its
# flags, lowering and the input know which are theirs. The network comes with its weights and is no
# target: transform's rule makes all that end in .mlir.
$(BUILD)/%_lowered_weight.npz: $(BUILD)/$$m/$$m.mlir $(BUILD)/$$m/$$m_top_f32_all_weight.npz \
		$(BUILD)/$$m/$(CHIP)/$$v.parameters $$(call calibrated,$$m,$$v) $(CODE_lower_network) \
		$$(if $$(wildcard $(BUILD)/$$*_lowered.mlir),,FORCE)
	$(call stage,$m) lower --label '$v lower' --log '$(BUILD)/$m/$(CHIP)/logs/$v.lower.log' --in '$<' --in '$(word 2,$^)' \
	  $(call tables,$m,$v) \
	  --out '$(BUILD)/$*_lowered.mlir' --out '$(BUILD)/$*_lowered_weight.npz' \
	  $(call inside,lower_network) --mlir $m.mlir --lowered $(notdir $*)_lowered.mlir $(call deploy_flags,$m,$v)

# run: the lowered network in the interpreter, the model on the chip's emulator.
$(BUILD)/%.lowered.npz: $(BUILD)/$$m/$$m.mlir $(BUILD)/%_lowered_weight.npz $(BUILD)/$$m/$$m.picture.png \
		$(BUILD)/$$m/$(CHIP)/$$v.parameters $(CODE_run_network)
	$(call stage,$m) run --label '$v mlir' --log '$(BUILD)/$m/$(CHIP)/logs/$v.lowered.log' --out '$@' --in '$<' \
	  --in '$(BUILD)/$*_lowered.mlir' --in '$(word 2,$^)' --in picture.png='$(word 3,$^)' \
	  $(call inside,run_network) --network $m.mlir --model $(notdir $*)_lowered.mlir --picture picture.png $(@F) $(call deploy_flags,$m,$v)
$(BUILD)/%.emulated.npz: $(BUILD)/$$m/$$m.mlir $(BUILD)/%.$(MODEL) $(BUILD)/$$m/$$m.picture.png $(CODE_run_network)
	$(call stage,$m) run --label '$v model' --log '$(BUILD)/$m/$(CHIP)/logs/$v.emulated.log' --out '$@' --in '$<' --in '$(word 2,$^)' \
	  --in picture.png='$(word 3,$^)' \
	  $(call inside,run_network) --network $m.mlir --model $(notdir $(word 2,$^)) --picture picture.png $(@F) $(call deploy_flags,$m,$v)

# X.detect, X being a model (all of its variants) or one variant of it.
variants  = $(filter $(BUILT),$(if $(filter $(MODELS),$1),$(call get,$1,VARIANTS),$(variant_of)))
# What a network came as is run where that is ONNX. It comes first: it tells whether it is a detector.
raw       = $(if $(call direct,$1),,$(BUILD)/$1/$1.onnx.npz) $(BUILD)/$1/$1.float.npz \
	$(foreach each,$2,$(BUILD)/$1/$(CHIP)/$1_$(each).lowered.npz $(BUILD)/$1/$(CHIP)/$1_$(each).emulated.npz)
runs      = $(if $(call direct,$1),,--run ONNX '$(BUILD)/$1/$1.onnx.npz' --names-from $(call quoted,$(call onnx,$1))) \
	--run 'float mlir' '$(BUILD)/$1/$1.float.npz' $(foreach each,$2,--run '$(call upper,$(each)) mlir' '$(BUILD)/$1/$(CHIP)/$1_$(each).lowered.npz' \
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

# ---------------------------------------------------------------------------------------------
# Outputs: where a network's head is, and what each device wants of it

%.outputs: $$(call seen,$$(call model_of,$$*)) FORCE | $(HELPERS)
	$(if $(call model_of,$*),,$(error there is no $* whose outputs could be shown; make list shows what there is))
	$(if $(call direct,$(call model_of,$*)),@echo >&2 'tpumake: $(call model_of,$*) is no ONNX; only in one are outputs found'; exit 2)
	@'$(VENV)/bin/python' scripts/show_outputs.py $(call quoted,$(call onnx,$(call model_of,$*))) \
	  --device '$(call get,$(call model_of,$*),DEVICE)' --outputs $(call quoted,$(call get,$(call model_of,$*),OUTPUTS)) $(if $(JSON),--json)
seen = $(if $1,$(if $(call direct,$1),,$(call as_prerequisite,$(call onnx,$1))))

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
	@$(if $(JSON),>&2) '$(VENV)/bin/python' scripts/fetch_model.py '$(subst ','\'',$(call get,$1,URL))' '$$@'
endef

# 1 in the builds that are made to be compared: what they made isn't there afterwards.
REPRODUCING ?=
define variant
$1_$2: possible-$1_$2 $(BUILD)/$1/$(CHIP)/$1_$2.$(MODEL) $$$$(call side_car,$1,$2)
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
why_not    = $(call impossible,$(model_of),$(variant_of))
# The model of a target, which is a model or one of its variants; the variant of the latter.
model_of   = $(strip $(foreach each,$(MODELS),$(if $(filter $(each) $(addprefix $(each)_,$(VARIANTS)),$1),$(each))))
variant_of = $(patsubst $(model_of)_%,%,$1)

# The keys of a variant's stages, in their order.
records = $(if $(call direct,$1),,$(if $(filter ONNX,$(call kind,$1)),,'$(BUILD)/$1/logs/import.key') '$(BUILD)/$1/logs/downgrade.key') $(if $(call get,$1,$(samples)),'$(BUILD)/datasets/logs/$(call dataset,$1).key') \
	'$(BUILD)/$1/logs/transform.key' $(if $(filter %_calib_table,$(calibrated)),'$(BUILD)/$1/logs/calibrate.key') \
	$(if $(filter mix,$2),$(if $(call get,$1,QTABLE),,'$(BUILD)/$1/$(CHIP)/logs/qtable.key') \
	$(if $(filter %_float_table,$(qtable)),'$(BUILD)/$1/$(CHIP)/logs/float.key')) \
	'$(BUILD)/$1/$(CHIP)/logs/$2.key'

# The Makefile's own variables, which a stanza called `model`, say, has nothing to do with.
before := $(.VARIABLES)
own     = $(foreach each,$(filter $1_%,$(before)),$(if $(filter file,$(origin $(each))),$(each)))
include $(STANZAS)

# ---------------------------------------------------------------------------------------------
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
	$(if $(and $(network),$(photos)),$(if $(filter-out $(VARIANTS),$(precision)),@echo >&2 $(call quoted,tpumake: VARIANT=$(precision): there are $(VARIANTS)); exit 2),\
	  @echo >&2 'tpumake: which $(if $(network),pictures,network)? make $(firstword $(filter convert add,$(MAKECMDGOALS))) MODEL=~/best.onnx IMAGES=~/photos'; exit 2)
convert: possible-convert $$(stanza)
	+@$(MAKE) --no-print-directory STANZAS='$(stanza)' converted
# In the inner make: its one model.
converted: $$(foreach each,$$(MODELS),$$(addprefix $$(each)_,$$(precision)))
	@:$(if $(JSON),,$(foreach each,$^,$(if $(built_$(each)),,$(info → $(BUILD)/$(MODELS)/$(CHIP)/$(each).$(MODEL)))))
	@$(if $(JSON),:,printf '%s\n' $(call shell_word,  to keep its stanza: make add $(to_keep)))
to_keep = $(strip $(call argument,MODEL,$(given_model)) $(foreach each,IMAGES NAME VARIANT $(sort $(answers)),$(if $(call given,$(each)),$(call argument,$(each),$(call given,$(each))))))
argument = $1=$(if $(filter $(subst $(space),?,$2),$(call sober,$(subst $(space),?,$2),$(ODD_TO_SHELLS))),$2,'$(subst ','\'',$2)')

add: possible-convert $$(stanza)
	@'$(VENV)/bin/python' scripts/add_stanza.py '$(stanza)' $(call quoted,$(subst $(space),?,$(STANZAS))) $(addprefix --taken ,$(MODELS)) $(addprefix --variant ,$(VARIANTS))

.PHONY: all list info
# all: one more make for everything, so that what came of each target is told at the end, whatever
# happens; each stage notes it in a file. It takes the outer make's flags and shares its jobs.
all:
	+@$(HOST_PYTHON) -S scripts/build_list.py --make '$(MAKE_COMMAND)' --build '$(BUILD)' \
	  $(if $(LIST),--list $(call shell_word,$(LIST))) $(if $(JSON),--json)
TPUMAKE_EVENTS ?=
event = $(if $(TPUMAKE_EVENTS),$(file >>$(TPUMAKE_EVENTS),$1))
shell_word = '$(subst ','\'',$1)'

info: | $(HELPERS)
	@$(if $(FILE),'$(VENV)/bin/python' scripts/model_info.py $(if $(JSON),--json) --device $(DEVICE) $(call shell_word,$(FILE)),echo >&2 'tpumake: which file? make info FILE=x.cvimodel'; exit 2)

# reproduce: what is built twice from nothing, under other conditions, has the same bytes.
# The models that a target belongs to, and where what they are built from is.
reproduced = $(strip $(foreach each,$(MODELS),$(if $(filter all $(each) $(addprefix $(each)_,$(VARIANTS)) \
	$(BUILD)/$(each)/% $(BUILD)/datasets/$(call dataset,$(each))/%,$1),$(each))))
sources_of = $(foreach name,$(FILES) DATASET $(LISTS),$(if $(call file_of,$1,$(name)),--source $1_$(name)=$(call quoted,$(call file_of,$1,$(name)))))
%.reproduce: FORCE | $(HELPERS)
	@$(if $(call reproduced,$*),,$(error there is no $* to reproduce; make list shows what can be built))
	@'$(VENV)/bin/python' scripts/reproduce.py '$*' $(if $(JSON),--json) --build '$(BUILD)' --make '$(MAKE_COMMAND)' \
	  $(addprefix --makefile ,$(MAKEFILE_LIST)) --environment '$(VENV)' --environment '$(TOOLCHAIN)' \
	  $(foreach each,$(call reproduced,$*),$(call sources_of,$(each)))

# bugreport: what a maintainer would ask for, in one archive: about a model, one of its variants, or
# what failed last. BUGREPORT: weights, pictures, or both: these, too.
BUGREPORT ?=
KNOBS += BUGREPORT
.PHONY: bugreport
report = @$(HOST_PYTHON) scripts/pack_bugreport.py --build '$(BUILD)' --make-version '$(MAKE_VERSION)' --also $(call shell_word,$(BUGREPORT)) \
	$(foreach each,$(MODELS),--network $(each)=$(call quoted,$(call source,$(each))) $(if $(call get,$(each),$(call samples,$(each))),--set '$(each)=$(call dataset,$(each))')) \
	$(addprefix --lock ,$(wildcard requirements/*.txt)) --environment VENV='$(VENV)' --environment TOOLCHAIN='$(TOOLCHAIN_HERE)'
bugreport:
	$(report)
%.bugreport: FORCE
	@$(if $(call model_of,$*),,$(error there is no $* to report on; make list shows what can be built))
	$(report) --model '$(call model_of,$*)' --chip $(CHIP) --variant '$(patsubst $(call model_of,$*),,$(call variant_of,$*))'

# With JSON=1: all that can be built for this chip, what it is built from, and the records of its stages.
list:
	@:$(if $(JSON),$(list_json),$(foreach each,$(MODELS),$(info $(each): $(addprefix $(each)_,$(call get,$(each),VARIANTS)))))
json_list = [$(subst $(space),$(comma) ,$(patsubst %,"%",$(strip $1)))]
target_json = {"target": "$1_$2", "model": "$1", "variant": "$2", \
	"declared": $(if $(filter $2,$(call get,$1,VARIANTS)),true,false), \
	"refused": $(if $(call impossible,$1,$2),$(call json,$(call impossible,$1,$2)),null), \
	"output": "$(BUILD)/$1/$(CHIP)/$1_$2.$(MODEL)", "sources": {$(call sources_json,$1)}, \
	"records": $(call json_list,$(BUILD)/$1/logs/stanza.key $(call contract_record,$1,$2) $(subst ',,$(call records,$1,$2)))}
# The last one is the model's own.
contract_record = $(if $(bound),$(BUILD)/$1/$(CHIP)/logs/$2.contract.key)
sources_json = $(subst ?,$(space),$(subst $(space),$(comma) ,$(strip $(foreach name,$(call kind,$1) CAFFEMODEL TEST_INPUT,$(if \
	$(call path,$1,$(name)),"$1_$(name)":$(call json,$(call path,$1,$(name))))))))
last_target = $(lastword $(MODELS))_$(lastword $(VARIANTS))
list_json = $(info {"$$schema": "list.schema.json", "chip": "$(CHIP)", "chips": $(call json_list,$(CHIPS)), "targets": [)$(foreach \
	which,$(MODELS),$(foreach how,$(VARIANTS),$(info $(call target_json,$(which),$(how))$(if \
	$(filter $(last_target),$(which)_$(how)),,$(comma)))))$(info ]})

# ---------------------------------------------------------------------------------------------
# Help. Printing takes no process: nothing is built, not even an environment.

define help_text
make MODEL_VARIANT           build a model, for instance: make $(firstword $(MODELS))_$(firstword $(VARIANTS))
make convert MODEL=~/best.onnx IMAGES=~/photos
                             build a network of yours that has no stanza: one is inferred, and shown
                             (NAME=gate VARIANT=int8, and any stanza variable: SCALE=0.0039216)
make add MODEL=… IMAGES=…    append that stanza to $(STANZAS)
make MODEL, make all         every variant of a model's stanza; of all models, with a table at the end
make all LIST=FILE -k        what a file lists, a target a line; -k goes on after failures
make list                    what can be built
make MODEL_VARIANT.check     all that can be known beforehand: stanza, network, pictures, machine (MODEL.check; JSON=1)
make doctor                  the machine, and all models in brief (JSON=1)
make MODEL_VARIANT.key       what the keys of its stages are made of (JSON=1: all of it)
make MODEL_VARIANT.info      what the model is, and what DEVICE will do with it: decoder, classes, memory, parts (JSON=1)
make info FILE=x.cvimodel    the same of any model file
make MODEL.outputs           where the network's head is, why, and what each device wants of it (JSON=1)
make MODEL_VARIANT.detect    what it finds in IMAGE=photo.jpg, beside the float network (MODEL.detect: all variants;
                             CONF=0.25 IOU=0.7 OUT=drawing.png JSON=1)
make MODEL_VARIANT.reproduce build it twice, under other conditions, and compare all bytes
make MODEL_VARIANT.bugreport what a maintainer would ask for, in one archive; make bugreport: of what failed last
                             (BUGREPORT="weights pictures": these, too)
make setup                   both environments; builds do it by themselves (EXTRA="$(KNOWN_EXTRAS)": those, too)
make test-fast               the project's tests that need no toolchain, in under a minute
make test, make test-full    all of them; with those that take long
make lint                    ruff, the Makefile, shellcheck
make bench                   how long make takes, beside DVC and Snakemake with the same stages
make lock                    the lock files anew
make clean, make distclean   remove what was built; the environments too; clean-extras: only the extras

Models ($(STANZAS)): $(MODELS)
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

.PHONY: test test-fast test-full lint lock clean clean-extras distclean
# A file at a time, so that what its tests share is made once.
PYTEST = '$(VENV)/bin/python' -m pytest --numprocesses auto --dist loadfile

test-fast: $(DEV)
	@$(PYTEST) -m 'not slow and not toolchain and not full'

ALL_EXTRAS = $(foreach each,$(KNOWN_EXTRAS),$(call extra_ready,$(each)))
test: $(DEV) $(TOOLS) $(ALL_EXTRAS)
	@$(PYTEST) -m 'not full'

test-full: $(DEV) $(TOOLS) $(ALL_EXTRAS)
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
	$(foreach each,$(basename $(notdir $(wildcard requirements/tpu_mlir-*.in))),$(COMPILE) \
	  --python-version 3.10 --python-platform x86_64-manylinux_2_35 \
	  --override $(each).override $(each).in -o $(each).txt$(newline))
	$(foreach each,$(patsubst requirements/extra-%.in,%,$(wildcard requirements/extra-*.in)),\
	  $(COMPILE) --python-version 3.10 --python-platform x86_64-manylinux_2_35 \
	  --override extra-$(each).override extra-$(each).in -o extra-$(each).txt && cd .. &&) :
	$(COMPILE) --universal --python-version 3.10 --override bench.override bench.in -o bench.txt

clean:
	rm -rf '$(BUILD)'

clean-extras:
	rm -rf '$(EXTRAS)'

distclean: clean clean-extras
	rm -rf '$(VENV)' '$(TOOLCHAIN)' '$(BENCH_VENV)'
