"""`ultralytics val` of an ONNX, in the torch extra: run by tests/test_evaluate.py.

What that extra's Python and packages lack, archives in XZ and fonts, validation has no use for.
"""

import os
import sys
import tarfile

tarfile.is_tarfile = lambda name: False
os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=sys.argv[3])

from ultralytics import YOLO  # noqa: E402
from ultralytics.data import utils  # noqa: E402

utils.check_font = lambda *_, **__: None
found = YOLO(sys.argv[1], task="detect").val(
    data=sys.argv[2], imgsz=640, batch=1, device="cpu", plots=False, verbose=False, workers=0,
    project=sys.argv[3],
)  # fmt: skip
print("FIGURES", found.box.map50, found.box.map)
