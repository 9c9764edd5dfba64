"""What the README shows runs."""

import re
from pathlib import Path

from tests.support.data_files import random_regions, write_precomp
from tests.support.small_runs import run, small_config
from tshsr.data.layouts import open_split

README = Path(__file__).parents[2] / "README.md"


def test_the_python_example_runs(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write_precomp(tmp_path / "data", split, random_regions(3), each=2)
    splits = (open_split(tmp_path / "data", "train"), open_split(tmp_path / "data", "dev"))
    run(small_config(epochs=1), splits, tmp_path / "run")
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    code = code.replace("runs/first", str(tmp_path / "run")).replace('"DIR"', repr(str(tmp_path / "data")))
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    retriever, images, captions = (names[name] for name in ("retriever", "images", "captions"))
    assert retriever.score(images, captions).shape == (3, 2)


def test_every_link_into_the_checkout_leads_somewhere() -> None:
    for page in (README, *sorted((README.parent / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_decisions_are_linked_and_every_page_of_docs_is_reachable() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#\s]+)", README.read_text(encoding="utf-8")))
    assert {f"docs/{path.name}" for path in (README.parent / "docs").iterdir()} <= linked


def test_every_heading_that_is_linked_to_exists() -> None:
    text = README.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]+)#([^)]+)\)", text):
        headings = re.findall(r"^#+ (.*)$", (README.parent / target).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert anchor in {anchor_of(heading) for heading in headings}, f"{target}#{anchor}"


def anchor_of(heading: str) -> str:
    """How a heading is linked to: markup removed, lower case, punctuation gone, a hyphen a space."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
