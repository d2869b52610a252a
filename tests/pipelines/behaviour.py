"""What both steps of the small pipeline can be asked to do, each in its own process."""

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from goldpath.core.errors import DataError


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while ballast.write(b"x" * 4096):
            pass


def behave(how: str) -> None:
    """Fail, be killed, fill the disk, or wait for a file; whichever step comes first does it."""
    run_dir = Path(os.environ["GOLDPATH_RUN_DIR"])
    step = os.environ["GOLDPATH_STEP"]
    if how == "both-fail":
        raise DataError(f"{step} has failed", "Mend it.")
    if how == "both-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "full":
        fill(run_dir / "ballast")
        raise OSError(errno.ENOSPC, "No space left on device")
    if how == "wait":
        print(f"{step} waits", flush=True)
        while not (run_dir / f"go-{step}").exists():
            time.sleep(0.05)
        print(f"{step} goes on", flush=True)
