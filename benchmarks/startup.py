"""How long `napari-msp --help` and each command's help take, in a fresh interpreter.

python benchmarks/startup.py
"""

import subprocess
import sys
import time

from napari_msp.cli import COMMANDS

REPEATS = 5
LIMIT = 0.3
"""Seconds that a person does not notice as waiting (our choice)."""


def seconds(*arguments: str) -> float:
    """Time a command; the quickest of some repeats, as others use the machine too."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        command = [sys.executable, "-m", "napari_msp", *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> int:
    slow = 0
    for arguments in (["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)):
        took = seconds(*arguments)
        slow += took > LIMIT
        print(f"{took:.2f} s  napari-msp {' '.join(arguments)}")
    return min(slow, 1)


if __name__ == "__main__":
    sys.exit(main())
