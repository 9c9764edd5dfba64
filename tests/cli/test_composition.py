"""`tshsr composition`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import refused, tshsr
from tests.support.composition import write_aro, write_pictures, write_sugarcrepe, write_winoground


def test_false_captions_of_scenes(run: Path, scenes: Path) -> None:
    said = tshsr("composition", run, "--data", scenes, "--device", "cpu", "--quiet")
    assert said.code == 0, said.err
    for part in ("attribute", "relation", "MaxSim", "in percent; chance: 50.", "fused minus v·t: ", "over pictures."):
        assert part in said.out
    values = tshsr("composition", run, "--data", scenes, "--limit", "3", "--json", "-").json()
    assert values["cases"] == values["composition"]["overall"]["fused"]["cases"] == 3
    assert list(values["composition"]["overall"]) == ["pooled", "maxsim", "fused"]


@pytest.mark.parametrize(
    ("write", "cases", "shown"),
    [(write_sugarcrepe, 3, "swap_att"), (write_aro, 2, "attribution"), (write_winoground, 1, "group")],
)
def test_benchmarks_with_pictures_of_the_user(
    run: Path, tmp_path: Path, write: Callable[[Path], None], cases: int, shown: str
) -> None:
    write(tmp_path)
    write_pictures(tmp_path / "pictures")
    start = ("composition", run, "--annotation", tmp_path, "--pictures", tmp_path / "pictures", "--device", "cpu")
    said = tshsr(*start, "--quiet")
    assert said.code == 0, said.err
    assert shown in said.out
    assert tshsr(*start, "--json", "-").json()["cases"] == cases


def test_what_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    assert refused("composition", run).startswith(
        "tshsr: expected --annotation PATH with --pictures DIR or --data STORE, or --data scenes; for example: tshsr "
    )
    assert refused("composition", run, "--data", "scenes", "--layout", "aro") == (
        "tshsr: --layout aro is of --annotation, which is missing; give it, or leave both out."
    )
    write_aro(tmp_path)
    needs = "tshsr: --annotation needs its pictures: give either --pictures DIR or --data STORE."
    assert refused("composition", run, "--annotation", tmp_path) == needs
    assert refused("composition", run, "--annotation", tmp_path, "--pictures", tmp_path, "--data", "scenes") == needs
    assert (
        refused("composition", run, "--data", "scenes", "--limit", "0") == "tshsr: --limit is 0; expected at least 1."
    )
