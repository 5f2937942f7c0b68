# What chips, toolchains and devices can, as far as Make has to know it; and what hence can't be built.

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
CALIBRATORS := tpumake tpu_mlir
ifneq ($(words $(CALIBRATOR)).$(words $(filter $(CALIBRATORS),$(CALIBRATOR))),1.1)
$(error CALIBRATOR=$(CALIBRATOR) is not known; known are: $(CALIBRATORS))
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
