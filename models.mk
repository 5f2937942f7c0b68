# One stanza a model: assignments, then one line. `make help` lists what can be assigned.
# Everything here can also be given on the command line: make yolo11n_int8 yolo11n_ONNX=~/best.onnx

# YOLO11n trained on datasets/shapes; models/README.md has its figures.
yolo11n_ONNX          = models/yolo11n.onnx
yolo11n_INPUT_SHAPES  = [[1,3,640,640]]
yolo11n_MEAN          = 0,0,0
yolo11n_SCALE         = 0.0039216,0.0039216,0.0039216
yolo11n_PIXEL_FORMAT  = rgb
yolo11n_OUTPUTS       = auto
yolo11n_DATASET       = datasets/shapes
yolo11n_EVAL_DATASET  = datasets/shapes_val
yolo11n_VARIANTS      = int8 mix bf16
$(eval $(call model,yolo11n))

# Ultralytics' own YOLO11n, trained on COCO's 80 classes (AGPL-3.0), fetched when it is first needed.
# Calibrate it with pictures like those that your camera will see.
yolo11n_coco_URL          = https://github.com/ultralytics/assets/releases/download/v8.3.0/yolo11n.onnx
yolo11n_coco_ONNX         = models/yolo11n_coco.onnx
yolo11n_coco_INPUT_SHAPES = [[1,3,640,640]]
yolo11n_coco_SCALE        = 0.0039216,0.0039216,0.0039216
yolo11n_coco_PIXEL_FORMAT = rgb
yolo11n_coco_DATASET      = datasets/coco
yolo11n_coco_VARIANTS     = int8 bf16
$(eval $(call model,yolo11n_coco))

# The smallest network with a head like YOLO11's: builds in seconds, for the tests.
tiny_ONNX             = models/tiny.onnx
tiny_INPUT_SHAPES     = [[1,3,64,64]]
tiny_SCALE            = 0.0039216,0.0039216,0.0039216
tiny_PIXEL_FORMAT     = rgb
tiny_DATASET          = datasets/shapes
tiny_EVAL_DATASET     = datasets/shapes_val
tiny_INPUT_NUM        = 16
tiny_VARIANTS         = int8 bf16
$(eval $(call model,tiny))
