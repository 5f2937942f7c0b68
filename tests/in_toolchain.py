"""Run several of tpu_mlir's tools in one process, each as if it was started.

Starting one takes longer than a small network does. Commands, lists of words, are JSON on standard
input; what is said goes to standard output.
"""

import json
import os
import runpy
import sys
from pathlib import Path

TOOLS = Path(os.environ["TPUC_ROOT"]) / "python" / "tools"

for command in json.load(sys.stdin):
    sys.argv = command
    try:
        runpy.run_path(str(TOOLS / command[0]), run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{command}: {end.code}")
