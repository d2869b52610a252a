"""How much memory this machine has for a training: what is free, what its container allows, and on its GPUs."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

from goldpath.core.spec import Result

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
_UNLIMITED = 2**60
DRIVERS = tuple(map(Path, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))
"""Devices of the GPU drivers that PyTorch works with on Linux: NVIDIA's, AMD's, and Windows' below WSL."""
_ASK_S = 120.0
_ASK = """
import json, torch
able = torch.cuda.is_available()
rows = [(torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i), torch.cuda.is_bf16_supported(False))
        for i in range(torch.cuda.device_count() if able else 0)]
print(json.dumps(rows))
"""


class MachineMemory(Result):
    """Bytes."""

    available: int
    """What a new process can take without anything being swapped out or killed."""
    total: int
    """Of the machine, or the limit of the container where that is less."""
    limited: bool
    """Whether a container's limit decides."""


class LocalGpu(Result):
    """A GPU, or MIG slice, that PyTorch sees on this machine; bytes."""

    name: str
    available: int
    total: int
    bf16: bool


@functools.cache
def gpus() -> tuple[LocalGpu, ...]:
    """What PyTorch sees here, asked of a child process: a CUDA context would stay in ours and take memory."""
    if not any(driver.exists() for driver in DRIVERS):
        return ()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=_ASK_S, check=True
        )
        rows = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return ()  # a driver that PyTorch cannot work with: the training would not find a GPU either
    return tuple(
        LocalGpu(name=name, available=free, total=all_, bf16=bf16) for name, free, all_, bf16 in rows
    )


def memory(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> MachineMemory:
    """This machine's memory, and the limits of every cgroup (v2 or v1) that this process is in.

    Args:
        cgroups: where the cgroup file systems are mounted.
        own: names this process's cgroups.
    """
    import psutil

    found = psutil.virtual_memory()
    available, total, limited = int(found.available), int(found.total), False
    for limit, used in _limits(cgroups, own):
        if limit - used < available:
            available, limited = max(0, limit - used), True
        total = min(total, limit)
    return MachineMemory(available=available, total=total, limited=limited)


def _limits(cgroups: Path, own: Path) -> list[tuple[int, int]]:
    """Limit and use of each cgroup with a limit, bytes; page cache that can be dropped is not in use."""
    names = {"": "", "memory": ""}
    for row in _read(own).splitlines():
        _, controllers, path = [*row.split(":", 2), "", ""][:3]
        if controllers == "" or "memory" in controllers.split(","):
            names["memory" if controllers else ""] = path.strip("/")
    rows = []
    for mount, path in names.items():
        version = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if mount else ("memory.max", "memory.current")
        )
        folder = cgroups / mount / path
        # In a container the path may be the host's, which is not mounted: then the mount itself is the container's.
        for place in [folder, *folder.parents]:
            if not place.is_relative_to(cgroups / mount):
                break
            limit, used = (_number(place / name) for name in version)
            if limit is not None and limit < _UNLIMITED:
                rows.append((limit, max(0, (used or 0) - _droppable(place))))
    return rows


def _droppable(place: Path) -> int:
    for row in _read(place / "memory.stat").splitlines():
        name, _, value = row.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdigit():
            return int(value)
    return 0


def _number(file: Path) -> int | None:
    text = _read(file).strip()
    return int(text) if text.isdigit() else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
