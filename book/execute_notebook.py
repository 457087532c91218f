"""Execute one notebook with papermill, in a process that imports nothing of the package; ``gradcampp book`` starts some.

python -P execute_notebook.py SOURCE TARGET PARAMETERS, the last as JSON. A failed cell ends it with exit code 1 and a line of
JSON: ``source`` of the cell and ``error``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path


def main(source: str, target: str, parameters: str) -> int:
    """Execute a notebook in the working directory; returns the exit code."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    with tempfile.TemporaryDirectory() as sockets:
        os.environ["JUPYTER_RUNTIME_DIR"] = sockets
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})  # no port to collide on
        try:
            papermill.execute_notebook(
                source, target, json.loads(parameters), kernel_name="python3", progress_bar=False,
                cwd=str(Path.cwd()), config=config,
            )  # fmt: skip
        except PapermillExecutionError as error:
            print(json.dumps({"source": error.source, "error": f"{error.ename}: {' '.join(str(error.evalue).split())}"}))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
