"""The source uses nothing that executes what it reads; `bandit` and ruff's S rules judge the rest."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
UNPICKLE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
OWN_WORKERS = {"tshsr/engines/ray.py"}
"""Shards for Ray's workers: bytes of this package's own processes, never of a file."""
EXTRACT = ("extractall", "unpack_archive", "archive.extract", "ZipFile.extract", "TarFile.extract")


def dotted(function: ast.expr) -> str:
    """`a.b().c` of the called expression."""
    if isinstance(function, ast.Attribute):
        return f"{dotted(function.value)}.{function.attr}"
    return f"{dotted(function.func)}()" if isinstance(function, ast.Call) else getattr(function, "id", "")


@cache
def calls() -> list[tuple[str, ast.Call, str]]:
    """File, call, and dotted name of every call of the package."""
    return [
        (path.relative_to(SOURCE).as_posix(), node, dotted(node.func))
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def keyword(call: ast.Call, name: str) -> object:
    """The constant value of a keyword argument; None where it is missing or computed."""
    values = [one.value for one in call.keywords if one.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def test_nothing_is_unpickled() -> None:
    for file, call, name in calls():
        first, _, last = name.partition(".")
        if first in UNPICKLE and last.startswith("load"):
            assert file in OWN_WORKERS, f"{file}:{call.lineno}"
        if name == "torch.load":
            assert keyword(call, "weights_only") is True, f"{file}:{call.lineno}"
        if name in ("np.load", "numpy.load"):
            assert keyword(call, "allow_pickle") in (None, False), f"{file}:{call.lineno}"
        assert name not in ("eval", "yaml.load", "yaml.unsafe_load"), f"{file}:{call.lineno}"


def test_remote_code_is_never_trusted() -> None:
    found = 0
    for file, call, name in calls():
        assert keyword(call, "trust_remote_code") in (None, False), f"{file}:{call.lineno}"
        if name.lower().split(".")[0] in ("auto", "transformers()") and name.endswith(".from_pretrained"):
            assert keyword(call, "trust_remote_code") is False, f"{file}:{call.lineno}"
            found += 1
    assert found >= 5


def test_no_archive_is_unpacked_and_no_shell_is_started() -> None:
    for file, call, name in calls():
        assert not name.endswith(EXTRACT), f"{file}:{call.lineno}"
        assert not name.startswith(("os.system", "os.popen")), f"{file}:{call.lineno}"
        assert keyword(call, "shell") in (None, False), f"{file}:{call.lineno}"
