"""The allocator's settings; in a process of its own, as they hold for all of it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

import tshsr.system
from tshsr.system import keep_freed_memory

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


def faults(how: str) -> int:
    """Page faults of a process that takes and frees a large block again and again."""
    answer = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(answer.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc")
def test_freed_memory_is_not_faulted_in_again() -> None:
    pages = 40 * 2**20 // 4096 // 16  # of one block; a sixteenth where the system hands out pages by 64 KiB
    assert faults("leave") - faults("keep") > 3 * pages


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tshsr.system.sys, "platform", "darwin")
    assert keep_freed_memory() is False
    monkeypatch.setattr(tshsr.system.sys, "platform", "linux")
    monkeypatch.setattr(tshsr.system.platform, "libc_ver", lambda: ("musl", ""))
    assert keep_freed_memory() is False
