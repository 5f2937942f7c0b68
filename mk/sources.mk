# Where a model's network and its samples come from: the files that a stanza's variables mean.

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

# Sets of samples.
LISTS      := DATA_LIST TUNE_LIST
set        = $(patsubst -%,%,$(subst ',_,$(subst ?,_,$(subst /,-,$(patsubst datasets/%,%,$(patsubst $(from)%,%,$(patsubst %/,%,$(call path,$1,$2))))))))$(if $(filter $2,$(LISTS)),-listed)$(patsubst %,-%,$(filter-out 100,$(call set_number,$1,$2)))
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
