# What a stanza may assign, with its default, by what it is for. Names are those of tpu_mlir's flags;
# docs/variables.md tells what each means, and which flags have no variable and why.
STANZA_PARTS := network input dataset calibrate qtable deploy compare evaluate matrix

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

STANZA_calibrate := TUNE_NUM HISTOGRAM_BIN_NUM CALIBRATION_DEBUG_CMD CALIBRATOR
DEFAULT_TUNE_NUM             = 5
DEFAULT_HISTOGRAM_BIN_NUM    = 2048
DEFAULT_CALIBRATION_DEBUG_CMD =
DEFAULT_CALIBRATOR           = $(CALIBRATOR)

STANZA_qtable := QTABLE_INPUT_NUM EXPECTED_COS MIN_LAYER_COS FP_TYPE GLOBAL_COMPARE_LAYERS QTABLE QTABLE_GOAL FLOAT_LAYERS
DEFAULT_QTABLE_INPUT_NUM     = 10
DEFAULT_EXPECTED_COS         = 0.99
DEFAULT_MIN_LAYER_COS        = 0.99
DEFAULT_FP_TYPE              = auto
DEFAULT_GLOBAL_COMPARE_LAYERS =
DEFAULT_QTABLE               =
DEFAULT_QTABLE_GOAL          =
DEFAULT_FLOAT_LAYERS         =

STANZA_deploy := FUSE_PREPROCESS CUSTOMIZATION_FORMAT ALIGNED_INPUT QUANT_INPUT QUANT_OUTPUT QUANT_INPUT_LIST \
	QUANT_OUTPUT_LIST IGNORE_F16_OVERFLOW OP_DIVIDE OPT DISABLE_LAYER_GROUP DYNAMIC ADDR_MODE NUM_CORE NUM_DEVICE \
	GROUP_BY_CORES COMPRESS_MODE MODEL_VERSION
DEFAULT_FUSE_PREPROCESS      = $(if $(filter $(UNFUSED),$(call get,$1,DEVICE)),0,$(on_camera))
DEFAULT_CUSTOMIZATION_FORMAT = $(if $(filter $(PLANAR),$(call get,$1,DEVICE)),RGB_PLANAR,RGB_PACKED)
DEFAULT_ALIGNED_INPUT        = $(if $(aligned_crashes),0,$(if $(filter cvimodel,$(MODEL)),1,0))
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

STANZA_evaluate := EVAL_DATASET EVAL_COUNT MAX_DROP
DEFAULT_EVAL_DATASET         =
DEFAULT_EVAL_COUNT           = 50
DEFAULT_MAX_DROP             =

# What the jobs of a matrix run on, and how long; nothing that is built depends on it.
STANZA_matrix := RUNNER TIMEOUT
DEFAULT_RUNNER               = ubuntu-24.04
DEFAULT_TIMEOUT              =

# A general tolerance holds for every variant that has none of its own.
tolerance = $(or $(call get,$1,TOLERANCE),$2)
# The cv18x sit in cameras, whose pictures go into the model as they come. Tensors have no such form.
on_camera = $(if $(filter cvimodel,$(MODEL)),$(if $(call tensors,$1),0,1),0)
