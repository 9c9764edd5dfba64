"""The parts of `make release` that need no clean environment."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.markdown import ROOT
from tests.support.release import check_sdist, check_wheel, lowest_versions

PROJECT = ROOT / "pyproject.toml"
CAMPAIGNS = ROOT / "reliability"


def package_files() -> list[str]:
    """What the wheel must hold."""
    files = [path for path in (ROOT / "src" / "tshsr").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [path.relative_to(ROOT / "src").as_posix() for path in files]


def test_a_complete_wheel_is_accepted() -> None:
    check_wheel([*package_files(), "tshsr-0.1.0.dist-info/METADATA", "tshsr-0.1.0.dist-info/licenses/LICENSE"])


def test_a_wheel_without_the_types_marker_is_refused() -> None:
    names = [name for name in package_files() if name != "tshsr/py.typed"]
    with pytest.raises(SystemExit, match=r"tshsr/py\.typed"):
        check_wheel([*names, "tshsr-0.1.0.dist-info/licenses/LICENSE"])


def test_a_wheel_with_files_of_the_checkout_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"tests/conftest\.py"):
        check_wheel([*package_files(), "tests/conftest.py", "tshsr-0.1.0.dist-info/licenses/LICENSE"])


def test_an_sdist_without_its_tests_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"lacks .*tests/conftest\.py"):
        check_sdist(["pyproject.toml", "README.md"])


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    pins = lowest_versions(PROJECT)
    assert "jinja2==3.1" in pins
    assert not any(pin.startswith("torch==") for pin in pins)


def test_a_dependency_without_a_lower_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy"]\n')
    with pytest.raises(ValueError, match="expected name>=version; got 'numpy'"):
        lowest_versions(tmp_path / "pyproject.toml")


def test_extras_have_lower_bounds_and_dev_has_them_all() -> None:
    with PROJECT.open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for extra, requirements in extras.items():
        for requirement in requirements:
            assert re.fullmatch(r"[\w.-]+>=[\w.]+(; sys_platform == 'linux')?", requirement), f"{extra}: {requirement}"
            assert requirement in extras["dev"], f"{requirement} of {extra} is not in dev"


def test_workflows_call_make_targets_only() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = workflow.read_text(encoding="utf-8")
        steps = re.findall(r"^ *- run: (.*)$", text, flags=re.MULTILINE)
        assert steps, workflow.name
        campaigns = re.findall(r"[a-z]+", "".join(re.findall(r"campaign: \[(.*)\]", text)))
        named = "${{ matrix.campaign }}"
        steps = [step.replace(named, name) for step in steps for name in (campaigns if named in step else [""])]
        for step in steps:
            match = re.fullmatch(r"make ([\w-]+) PYTHON=python", step)
            assert match, f"{workflow.name}: {step}"
            assert re.search(rf"^{match[1]}:", makefile, flags=re.MULTILINE), f"{workflow.name}: {step}"


def test_every_campaign_is_scheduled() -> None:
    text = (ROOT / ".github" / "workflows" / "reliability.yml").read_text(encoding="utf-8")
    scheduled = re.findall(r"campaign: \[(.*)\]", text)[0].split(", ")
    programs = "".join(path.read_text(encoding="utf-8") for path in CAMPAIGNS.glob("*.py"))
    written = re.findall(r'write_result\(\s*"([a-z]+)"', programs)
    assert len(written) >= 7
    assert set(scheduled) >= {*written, "audit"}
    assert "make platforms" in text
    assert re.search(r"os: \[macos-latest, windows-latest\]", text)
