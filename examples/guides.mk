# The networks that the vendors' guides build. docs/guides.md goes through those command by command.
#   make STANZAS=examples/guides.mk yolov5s_mix
# With your own file: make … yolov5s_ONNX=~/yolov5s.onnx. Without, a stand-in of the same structure
# is made: what it sees is nonsense, how it builds is not.

# INT8 does untrained weights more harm than trained ones, so a stand-in is held to less than your file.
# $(call untrained,MODEL,TOLERANCE)
untrained = $(if $(filter $(BUILD)/examples/%,$($1_ONNX)),$2,$(DEFAULT_INT8_TOLERANCE))

# YOLOv5s with its final output, which INT8 alone would ruin (reCamera's guide, mixed precision).
yolov5s_ONNX          = $(BUILD)/examples/yolov5s.onnx
yolov5s_INPUT_SHAPES  = [[1,3,640,640]]
yolov5s_SCALE         = 0.0039216,0.0039216,0.0039216
yolov5s_PIXEL_FORMAT  = rgb
yolov5s_OUTPUTS       = none
yolov5s_DATASET       = datasets/shapes
yolov5s_MIN_LAYER_COS = 0.99
yolov5s_EXPECTED_COS  = 0.999
# The search stops long before it comes to where boxes and probabilities are made, in one tensor.
yolov5s_FLOAT_LAYERS  = /model.24/*,output0*
yolov5s_MIX_TOLERANCE = $(call untrained,yolov5s,0.7$(comma)-1)
yolov5s_VARIANTS      = int8 mix bf16
$(eval $(call model,yolov5s))

# The same, cut at its three convolutions (Sophgo's quick start, for BM1684X and BM1684).
yolov5s_cut_ONNX          = $(BUILD)/examples/yolov5s.onnx
yolov5s_cut_INPUT_SHAPES  = [[1,3,640,640]]
yolov5s_cut_DEVICE        = none
yolov5s_cut_SCALE         = 0.0039216,0.0039216,0.0039216
yolov5s_cut_PIXEL_FORMAT  = rgb
yolov5s_cut_OUTPUTS       = /model.24/m.0/Conv_output_0,/model.24/m.1/Conv_output_0,/model.24/m.2/Conv_output_0
yolov5s_cut_DATASET       = datasets/shapes
yolov5s_cut_INT8_TOLERANCE = $(call untrained,yolov5s_cut,0.7$(comma)-1)
yolov5s_cut_VARIANTS      = f32 f16 int8
$(eval $(call model,yolov5s_cut))

# YOLOv8n, cut where reCamera's decoding begins.
yolov8n_ONNX         = $(BUILD)/examples/yolov8n.onnx
yolov8n_INPUT_SHAPES = [[1,3,640,640]]
yolov8n_SCALE        = 0.0039216,0.0039216,0.0039216
yolov8n_PIXEL_FORMAT = rgb
yolov8n_DATASET      = datasets/shapes
yolov8n_INT8_TOLERANCE = $(call untrained,yolov8n,0.7$(comma)-1)
$(eval $(call model,yolov8n))

# Tiny YOLOv3 in mixed precision (Sophgo's guide to it, for BM1684X).
yolov3_tiny_ONNX          = $(BUILD)/examples/yolov3_tiny.onnx
yolov3_tiny_INPUT_SHAPES  = [[1,3,416,416]]
yolov3_tiny_DEVICE        = none
yolov3_tiny_SCALE         = 0.0039216,0.0039216,0.0039216
yolov3_tiny_PIXEL_FORMAT  = rgb
yolov3_tiny_OUTPUTS       = convolution_output1,convolution_output
yolov3_tiny_PAD_VALUE     = 128
yolov3_tiny_DATASET       = datasets/shapes
yolov3_tiny_MIN_LAYER_COS = 0.999
yolov3_tiny_EXPECTED_COS  = 0.9999
yolov3_tiny_INT8_TOLERANCE = $(call untrained,yolov3_tiny,0.7$(comma)-1)
yolov3_tiny_MIX_TOLERANCE  = $(call untrained,yolov3_tiny,0.7$(comma)-1)
yolov3_tiny_VARIANTS      = int8 mix
$(eval $(call model,yolov3_tiny))

# ResNet-18.
resnet18_ONNX         = $(BUILD)/examples/resnet18.onnx
resnet18_INPUT_SHAPES = [[1,3,224,224]]
resnet18_MEAN         = 123.675,116.28,103.53
resnet18_SCALE        = 0.0171,0.0175,0.0174
resnet18_PIXEL_FORMAT = rgb
resnet18_DATASET      = datasets/shapes
$(eval $(call model,resnet18))

# Networks of other frameworks, which docs/networks.md tells of: a classifier of 64×64 pictures each.
mobilenet_v2_PROTOTXT     = models/mobile.prototxt
mobilenet_v2_CAFFEMODEL   = models/mobile.caffemodel
mobilenet_v2_INPUT_SHAPES = [[1,3,64,64]]
mobilenet_v2_RESIZE_DIMS  = 96,96
mobilenet_v2_SCALE        = 0.0039216,0.0039216,0.0039216
mobilenet_v2_PIXEL_FORMAT = rgb
mobilenet_v2_DATASET      = datasets/shapes
mobilenet_v2_INT8_TOLERANCE = 0.96,0.70
mobilenet_v2_VARIANTS     = int8
$(eval $(call model,mobilenet_v2))

resnet50_tf_TFLITE       = models/mobile_int8.tflite
resnet50_tf_INPUT_SHAPES = [[1,3,64,64]]
resnet50_tf_SCALE        = 0.0039216,0.0039216,0.0039216
resnet50_tf_PIXEL_FORMAT = rgb
resnet50_tf_DATASET      = datasets/shapes
$(eval $(call model,resnet50_tf))

simple_net_PT           = tests/data/frameworks/net.torchscript
simple_net_INPUT_SHAPES = [[1,3,64,64]]
simple_net_DEVICE       = none
simple_net_SCALE        = 0.0039216,0.0039216,0.0039216
simple_net_PIXEL_FORMAT = rgb
simple_net_DATASET      = datasets/shapes
$(eval $(call model,simple_net))

yolov5s_pt_TORCHSCRIPT  = tests/data/frameworks/net.torchscript
yolov5s_pt_INPUT_SHAPES = [[1,3,64,64]]
yolov5s_pt_DEVICE       = none
yolov5s_pt_SCALE        = 0.0039216,0.0039216,0.0039216
yolov5s_pt_PIXEL_FORMAT = rgb
yolov5s_pt_DATASET      = datasets/shapes
$(eval $(call model,yolov5s_pt))

mnet_PB           = tests/data/frameworks/net.pb
mnet_INPUT_SHAPES = [[1,3,64,64]]
mnet_DEVICE       = none
mnet_SCALE        = 0.0039216,0.0039216,0.0039216
mnet_PIXEL_FORMAT = rgb
mnet_DATASET      = datasets/shapes
$(eval $(call model,mnet))

squeezenet_PADDLE       = tests/data/frameworks/paddle3
squeezenet_INPUT_SHAPES = [[1,3,64,64]]
squeezenet_DEVICE       = none
squeezenet_SCALE        = 0.0039216,0.0039216,0.0039216
squeezenet_PIXEL_FORMAT = rgb
squeezenet_DATASET      = datasets/shapes
$(eval $(call model,squeezenet))

$(BUILD)/examples/%.onnx: training/make_network.py training/live_network.py | $(HELPERS) $(BUILD)/examples/
	@'$(VENV)/bin/python' $< $* '$@'
