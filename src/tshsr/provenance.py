"""Where a figure comes from: the code's commit, the machine, the versions and the time."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

PACKAGE = Path(__file__).resolve().parent


class Provenance(TypedDict):
    """What a reader needs to repeat a figure.

    Attributes:
        commit: The checkout's commit; "+changed" at the end where the package differs from it; "unknown" elsewhere.
        hardware: CPU, cores, memory, and the GPU where there is one.
        versions: Of python, torch, numpy and tshsr.
        time: UTC, ISO 8601.
    """

    commit: str
    hardware: str
    versions: dict[str, str]
    time: str


def provenance() -> Provenance:
    """Ask git, the machine and the packages."""
    return Provenance(
        commit=commit_of(PACKAGE),
        hardware=hardware(),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "tshsr": package_version(),
        },
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def commit_of(package: Path) -> str:
    """The commit of the checkout that holds this package.

    A package installed inside somebody else's repository (a virtual environment in it, say) is not tracked there and
    reads as "unknown": that repository's commit says nothing about this code.
    """
    if not git(package, "ls-files", "--", "__init__.py"):
        return "unknown"
    commit = git(package, "rev-parse", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+changed" if git(package, "status", "--porcelain", "--", ".") else "")


def git(folder: Path, *arguments: str) -> str:
    """What git says in a folder; empty where git is missing or refuses."""
    program = shutil.which("git")
    if program is None:
        return ""
    # Hooks of git export GIT_DIR and GIT_INDEX_FILE, which would turn the question to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = [program, "-C", str(folder), *arguments]
    # A fixed program with fixed arguments: nothing a user wrote gets here.
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    return answer.stdout.strip() if answer.returncode == 0 else ""


def hardware() -> str:
    """CPU model, usable cores, memory and GPU in one line."""
    parts = [cpu_model(), f"{usable_cores()} cores"]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):  # Windows has no sysconf
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return ", ".join(parts)


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name where the system tells it, else its architecture."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version() -> str:
    """The installed version of this package; "unknown" where it runs without an installation."""
    try:
        return metadata.version("tshsr")
    except metadata.PackageNotFoundError:
        return "unknown"
