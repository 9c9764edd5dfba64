"""`make release`: build wheel and sdist, and test the wheel in clean environments.

One environment has the newest versions of all dependencies, one the lowest that `pyproject.toml` allows. torch has the
version of `constraints.txt` in both, so that a CPU build suffices.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
SMOKE = Path(__file__).with_name("release_smoke.py")
CONSTRAINTS = ROOT / "constraints.txt"
ENVIRONMENTS = ("newest", "lowest")
LOWEST_PYTHON = (3, 11)
"""The lowest versions of dependencies have wheels for this version of Python, not for later ones."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and test.

    Returns:
        The exit code: 1 where a step fails.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.support.release", description=__doc__)
    parser.add_argument("--only", choices=ENVIRONMENTS, help="test this environment alone")
    wanted = parser.parse_args(arguments)
    try:
        wheel = build()
        for name in ENVIRONMENTS if wanted.only is None else (wanted.only,):
            if name == "lowest" and sys.version_info[:2] != LOWEST_PYTHON:
                say(f"the lowest versions are tested with Python {'.'.join(map(str, LOWEST_PYTHON))} only")
                continue
            with tempfile.TemporaryDirectory(prefix=f"tshsr-{name}-") as folder:
                test_wheel(wheel, Path(folder), lowest=name == "lowest")
    except subprocess.CalledProcessError as error:
        say(f"failed with code {error.returncode}: {' '.join(map(str, error.cmd))}")
        return 1
    return 0


def build() -> Path:
    """The wheel, beside the sdist that it is built from; both hold what they must.

    Raises:
        SystemExit: Where a distribution lacks a file, or has one that is no part of it.
    """
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        check_wheel(archive.namelist())
    with tarfile.open(sdist) as archive:
        check_sdist([name.partition("/")[2] for name in archive.getnames()])
    say(f"built {wheel.name} and {sdist.name}")
    return wheel


def check_wheel(names: Sequence[str]) -> None:
    """Every file of the package, its types marker, its license, and nothing else.

    Raises:
        SystemExit: Names what is missing or superfluous.
    """
    package = {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "tshsr").rglob("*") if path.is_file()
    }
    package = {name for name in package if "__pycache__" not in name}
    held = {name for name in names if not re.match(r"tshsr-[^/]*\.dist-info/", name)}
    if held != package or "tshsr/py.typed" not in held:
        raise SystemExit(f"release: the wheel does not hold the package's files: {sorted(held ^ package)}")
    if not any(name.endswith("licenses/LICENSE") for name in names):
        raise SystemExit("release: the wheel has no LICENSE")


def check_sdist(names: Sequence[str]) -> None:
    """What is needed to build and to test.

    Raises:
        SystemExit: Names what is missing.
    """
    needed = {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "Makefile",
        "tests/conftest.py",
        "docs/conf.py",
    }
    if missing := needed - set(names):
        raise SystemExit(f"release: the sdist lacks {', '.join(sorted(missing))}")


def test_wheel(wheel: Path, folder: Path, *, lowest: bool) -> None:
    """Install the wheel into a new environment outside of the checkout, and run the smoke test there."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pins = [] if not lowest else lowest_versions(ROOT / "pyproject.toml")
    (folder / "constraints.txt").write_text(
        "\n".join([*pins, CONSTRAINTS.read_text(encoding="utf-8")]), encoding="utf-8"
    )
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, "--constraint", folder / "constraints.txt", wheel, cwd=folder)
    run(python, "-m", "pip", "check", cwd=folder)
    run(python, SMOKE, cwd=folder)
    say(f"{wheel.name} works with the {'lowest' if lowest else 'newest'} versions of its dependencies")


def lowest_versions(project: Path) -> list[str]:
    """Constraints that pin every dependency to its lower bound; torch is left to constraints.txt.

    Raises:
        ValueError: Where a dependency has another form than `name>=version`.
    """
    with project.open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    pins = []
    for dependency in dependencies:
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)", dependency)
        if match is None:
            raise ValueError(f"expected name>=version; got {dependency!r}")
        if match[1] != "torch":
            pins.append(f"{match[1]}=={match[2]}")
    return pins


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command; it must succeed."""
    subprocess.run([str(word) for word in command], cwd=cwd, check=True)


def say(text: str) -> None:
    """Report a step."""
    sys.stdout.write(f"release: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
