"""Program of a site's process: `fccl` whose training takes HOSPITAL_STEP_S seconds per step.

`python -m benchmarks.hospital.worker_process` takes the arguments of `fccl`.
"""

from __future__ import annotations

import os

from benchmarks.hospital import pace
from cli.main import main

if __name__ == "__main__":
    pace.install(float(os.environ["HOSPITAL_STEP_S"]))
    main()
