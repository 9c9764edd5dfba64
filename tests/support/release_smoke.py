"""What a user does first with an installed wheel; run in its environment, outside of the checkout, without pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TINY = (
    *("--model.encoder.dim", "16", "--model.similarity-dim", "8", "--training.epochs", "1", "--training.batch", "16"),
    *("--loss.swapped", "0", "--device", "cpu"),
)
EXTRAS = {"search": "import tshsr; tshsr.Index", "features": "import tshsr; tshsr.open_extractor('clip')"}
"""For two of the extras, which are not installed here, a program that requires them."""


def main() -> None:
    """Run every step in the current folder."""
    import tshsr

    place = Path(tshsr.__file__).resolve()
    check(place.is_relative_to(Path(sys.prefix).resolve()), f"the installed package is tested, not {place}")
    check((place.parent / "py.typed").is_file(), "py.typed is installed")
    for name in tshsr.__all__:
        check(getattr(tshsr, name) is not None, f"tshsr.{name}")
    check(tshsr.__version__ in command("--version"), "--version")
    check("train" in command("--help"), "--help")

    tshsr.make_scenes("scenes-small", train=16, dev=6, test=10, processes=1)
    command("train", "tshsr-scenes", "--data", "scenes-small", "--out", "run", *TINY)
    command("evaluate", "run", "--data", "scenes-small", "--json", "report.json", "--device", "cpu")
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    check(report["images"] == 10 and 0 <= report["scores"]["fused"]["rsum"] <= 600, "the report")
    command("explain", "run", "--data", "scenes-small", "--image", "0", "--text", "a red ball", "--out", "page.html")
    check("<!doctype html>" in Path("page.html").read_text(encoding="utf-8").lower(), "the page")
    command("compare", "report.json", "report.json", "--json", "-")

    for extra, code in EXTRAS.items():
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        check(answer.returncode != 0 and f"[{extra}]" in answer.stderr.splitlines()[-1], f"extra {extra} is named")


def command(*arguments: str) -> str:
    """The output of `tshsr`, which must succeed."""
    script = Path(sys.executable).with_name("tshsr")
    answer = subprocess.run([str(script), *arguments], capture_output=True, text=True, check=False)
    check(answer.returncode == 0, f"tshsr {' '.join(arguments)}\n{answer.stderr}")
    return answer.stdout


def check(condition: bool, what: str) -> None:
    """End the test where something is wrong."""
    if not condition:
        raise SystemExit(f"smoke test: failed: {what}")
    sys.stdout.write(f"smoke test: {what.splitlines()[0]}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
