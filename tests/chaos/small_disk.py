"""Small file system of its own for a directory (tmpfs on Linux, as root), to be filled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILLER = "filler"
BLOCK = 1 << 16


class SmallDisk:
    """Directory with a limited size, from `mount` to `unmount`."""

    def __init__(self, path: Path, mib: int) -> None:
        self.path = path
        self._mib = mib
        self.mounted = False

    def mount(self) -> None:
        """Mount it where that is possible; otherwise it stays an ordinary directory."""
        self.path.mkdir(parents=True, exist_ok=True)
        if sys.platform != "linux" or os.geteuid() != 0:
            return
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._mib}m", "tmpfs", str(self.path)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.path / FILLER).open("ab", buffering=0) as file:
            size = BLOCK
            while size:
                try:
                    if file.write(bytes(size)) < size:
                        size //= 2
                except OSError:
                    size //= 2

    def free(self) -> None:
        (self.path / FILLER).unlink(missing_ok=True)

    def unmount(self) -> None:
        """Unmount it; a process that still has a file there does not prevent that."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)
            self.mounted = False
