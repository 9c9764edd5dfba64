"""Provenance of figures, and settings of the memory allocator."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tshsr.system
from tshsr.system import commit_of, cpu_model, keep_freed_memory, provenance

FAULTS = """
import resource, sys
from tshsr.system import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(6):
    block = b"x" * (40 * 2**20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
"""Page faults of a process; the allocator's settings hold for all of a process."""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package in a repository."""
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    return package


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")
    assert len(commit_of(checkout)) == 40


def test_a_changed_package_is_marked(checkout: Path) -> None:
    (checkout / "new.py").write_text("x = 1\n")
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD") + "+changed"


def test_changes_outside_the_package_do_not_count(checkout: Path) -> None:
    (checkout.parent.parent / "results.json").write_text("{}")
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")


def test_git_variables_of_another_repository_are_ignored(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "--quiet")
    expected = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert commit_of(checkout) == expected


def test_a_package_installed_inside_a_another_repository_is_unknown(checkout: Path) -> None:
    installed = checkout.parent.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert commit_of(installed) == "unknown"


def test_outside_a_checkout_or_without_git_the_commit_is_unknown(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path_factory.mktemp("bare")
    (bare / "__init__.py").write_text("")
    assert commit_of(bare) == "unknown"
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout) == "unknown"


def test_provenance_names_machine_versions_and_time() -> None:
    where = provenance()
    assert where["versions"]["torch"] == torch.__version__
    assert where["versions"]["numpy"] == np.__version__
    assert set(where["versions"]) == {"python", "torch", "numpy", "tshsr"}
    assert f"{tshsr.system.usable_cores()} cores" in where["hardware"]
    assert where["time"].endswith("+00:00")


def test_the_gpu_is_part_of_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert tshsr.system.hardware().endswith(", 2 x Some GPU")


def test_the_name_of_the_cpu_is_read_from_cpuinfo(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.0\nmodel name\t: Some CPU @ 2.0\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU @ 2.0"
    assert cpu_model(tmp_path / "none")


def faults(mode: str) -> int:
    """Page faults of a process that allocates and frees a large block several times."""
    result = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the parameters are glibc's")
def test_freed_memory_is_not_faulted_in_again() -> None:
    pages = 40 * 2**20 // 4096 // 16  # of one block; a sixteenth where the system has pages of 64 KiB
    assert faults("leave") - faults("keep") > 3 * pages


def test_other_allocators_keep_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tshsr.system.sys, "platform", "darwin")
    assert keep_freed_memory() is False
    monkeypatch.setattr(tshsr.system.sys, "platform", "linux")
    monkeypatch.setattr(tshsr.system.platform, "libc_ver", lambda: ("musl", ""))
    assert keep_freed_memory() is False
