"""The machine that figures were measured on, in words."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

PACKAGES = ("numpy", "scipy", "torch", "dipy", "monai", "torchio")
"""Whose versions figures may depend on."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe(threads: int) -> str:
    """Describe processor, cores, threads in use, memory and versions."""
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    mrtrix = _mrtrix()
    versions += [mrtrix] if mrtrix else []
    return f"{hardware(threads)}; {platform.system()}; {', '.join(versions)}"


def hardware(threads: int) -> str:
    """Describe what ratios depend on first: processor, cores, threads in use, memory."""
    memory = f", {_memory():.0f} GiB" if _memory() else ""
    return f"{_processor()}, {cores()} cores, {threads} in use{memory}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        text = information.read_text(encoding="utf-8")
        named, family, model = (
            re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
            for name in ("model name", "cpu family", "model")
        )
        if named:
            # Virtual machines often tell no more of the model than its maker's name.
            more = f" (family {family[1]}, model {model[1]})" if family and model else ""
            return named[1].strip() + more
    return platform.processor() or platform.machine()


def _memory() -> float:
    """Memory in GiB; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return 0.0


@cache
def _mrtrix() -> str:
    if shutil.which("mrinfo") is None:
        return ""
    said = subprocess.run(["mrinfo", "-version"], capture_output=True, text=True).stdout
    version = re.search(r"\d+\.\d+[\w.]*", said)
    return f"MRtrix {version[0]}" if version else "MRtrix"
