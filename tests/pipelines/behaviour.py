"""What both steps of the small pipeline can be asked to do, each in its own process."""

import os
import signal
import time
from pathlib import Path

from goldpath.core.errors import DataError


def behave(how: str) -> None:
    """Fail, be killed, fill the disk, or wait for a file; whichever step comes first does it."""
    run_dir = Path(os.environ["GOLDPATH_RUN_DIR"])
    step = os.environ["GOLDPATH_STEP"]
    if how == "both-fail":
        raise DataError(f"{step} has failed", "Mend it.")
    if how == "both-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "full":
        with (run_dir / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    if how == "wait":
        print(f"{step} waits", flush=True)
        while not (run_dir / f"go-{step}").exists():
            time.sleep(0.05)
        print(f"{step} goes on", flush=True)
