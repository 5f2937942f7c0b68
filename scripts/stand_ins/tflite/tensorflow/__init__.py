"""Stands in for TensorFlow, of which tpu_mlir's TFLite path uses `tensorflow.lite` alone."""
