"""Where figures come from: commit, machine, versions."""

import subprocess

import numpy as np
import pytest
import torch

import tshsr.system as origin
from tshsr.system import commit_of, cpu_model, provenance


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository that holds a package."""
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    return package


def test_the_commit_is_that_of_the_checkout(checkout):
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")
    assert len(commit_of(checkout)) == 40


def test_a_changed_package_says_so(checkout):
    (checkout / "new.py").write_text("x = 1\n")
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD") + "+changed"


def test_changes_outside_the_package_do_not_count(checkout):
    (checkout.parent.parent / "results.json").write_text("{}")
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")


def test_a_hook_of_another_repository_does_not_mislead(checkout, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "--quiet")
    expected = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert commit_of(checkout) == expected


def test_a_package_installed_inside_a_foreign_repository_is_unknown(checkout):
    installed = checkout.parent.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert commit_of(installed) == "unknown"


def test_outside_a_checkout_or_without_git_the_commit_is_unknown(checkout, tmp_path_factory, monkeypatch):
    bare = tmp_path_factory.mktemp("bare")
    (bare / "__init__.py").write_text("")
    assert commit_of(bare) == "unknown"
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout) == "unknown"


def test_provenance_names_machine_versions_and_time():
    where = provenance()
    assert where["versions"]["torch"] == torch.__version__
    assert where["versions"]["numpy"] == np.__version__
    assert set(where["versions"]) == {"python", "torch", "numpy", "tshsr"}
    assert f"{origin.usable_cores()} cores" in where["hardware"]
    assert where["time"].endswith("+00:00")


def test_the_gpu_is_part_of_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert origin.hardware().endswith(", 2 x Some GPU")


def test_the_cpu_is_read_where_the_system_tells_it(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.0\nmodel name\t: Some CPU @ 2.0\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU @ 2.0"
    assert cpu_model(tmp_path / "none")
