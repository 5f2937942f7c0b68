"""Run a script several times in one process, as if each were a process of its own.

Its frameworks take seconds to import. Reads a list of argument lists as JSON, and prints a list of
[exit code, standard output, standard error].
"""

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path

script, results = sys.argv[1], []
sys.path.insert(0, str(Path(script).parent))
for arguments in json.loads(sys.argv[2]):
    sys.argv = [script, *arguments]
    said, complained, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
    results.append([code, said.getvalue(), complained.getvalue()])
print(json.dumps(results))
