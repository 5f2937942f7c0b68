"""What the helpers in scripts/ share. Nothing here is run by itself."""

import os

# ONNX Runtime 1.29 and newer would tell its makers of the networks that it loads, and keeps an
# identifier of the machine for that (its docs/Privacy.md). It reads this once, when it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
