"""Stands in for scikit-image, which Caffe imports for reading and scaling pictures.

tpu_mlir does that by itself; nothing here is ever called.
"""
