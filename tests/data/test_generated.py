"""The built-in scenes as data: deterministic, and complete or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tshsr.data.generated as scenes_package
from tests.support.forked import forked, program
from tshsr.data.generated import make_scenes
from tshsr.data.store import open_store
from tshsr.data.truth import read_truth
from tshsr.errors import DataError, SettingsError
from tshsr.scenes.descriptor import EXTRACTOR, FEATURES, describe
from tshsr.scenes.generate import Chunk, GeneratedScene, generate_chunk

SIZES = {"train": 6, "dev": 4, "test": 10}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes") / "small", **SIZES, processes=1)


def test_the_splits_have_the_requested_sizes(folder: Path) -> None:
    for name, size in SIZES.items():
        split = open_store(folder, name)
        assert len(split.regions) == size
        assert len(split.captions) == 5 * size
        assert np.bincount(split.image_of_caption).tolist() == [5] * size
        assert split.extractor == EXTRACTOR
        assert split.regions.feature_dim == FEATURES


def test_features_are_those_of_the_pictures(folder: Path) -> None:
    split = open_store(folder, "test")
    batch = split.regions.read([3])
    assert batch.boxes is not None
    path = split.picture(3)
    assert path is not None
    with Image.open(path) as picture:
        assert picture.size == (160, 160)
        np.testing.assert_allclose(describe(picture, batch.boxes[0].numpy()), batch.regions[0].numpy(), atol=1e-4)


def test_the_truth_of_each_split_fits_its_captions(folder: Path) -> None:
    for name, size in SIZES.items():
        split, truth = open_store(folder, name), read_truth(folder, name)
        assert truth is not None
        assert len(truth.regions_of_word) == 5 * size
        for caption, words in zip(split.captions, truth.regions_of_word, strict=True):
            assert words
            assert max(words) < len(caption.split())
            assert all(0 <= region < 12 for regions in words.values() for region in regions)
        for foil in truth.foils:
            assert split.image_of_caption[foil.caption] == foil.image
            assert Counter(foil.text.split()) == Counter(split.captions[foil.caption].split())
        assert bool(truth.foils) is (name != "train")


def test_a_colour_word_points_at_pixels_of_that_colour(folder: Path) -> None:
    split, truth = open_store(folder, "test"), read_truth(folder, "test")
    assert truth is not None
    checked = 0
    for number, caption in enumerate(split.captions):
        for position, regions in truth.regions_of_word[number].items():
            if caption.split()[position] not in ("red", "green", "blue"):
                continue
            image = int(split.image_of_caption[number])
            path, batch = split.picture(image), split.regions.read([image])
            assert path is not None
            assert batch.boxes is not None
            with Image.open(path) as picture:
                for region in regions:
                    box = (batch.boxes[0, region].numpy() * 160).round().astype(int).tolist()
                    pixels = np.asarray(picture.crop(box)).reshape(-1, 3).astype(int)
                    channel = ("red", "green", "blue").index(caption.split()[position])
                    others = np.delete(pixels, channel, axis=1).max(axis=1)
                    assert (pixels[:, channel] > others + 60).mean() > 0.1
                    checked += 1
    assert checked > 5


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes_package, "CHUNK_SCENES", 4)
    made = make_scenes(tmp_path / "again", **SIZES, processes=2)
    assert contents(made) == contents(folder)


def test_a_scene_does_not_depend_on_how_many_there_are(folder: Path, tmp_path: Path) -> None:
    fewer = make_scenes(tmp_path / "fewer", train=0, dev=0, test=3, processes=1)
    name = "pictures/test-00002.png"
    assert (fewer / name).read_bytes() == (folder / name).read_bytes()
    assert open_store(fewer, "test").captions == open_store(folder, "test").captions[:15]
    assert read_truth(fewer, "dev") is None


def test_another_seed_gives_other_scenes(folder: Path, tmp_path: Path) -> None:
    other = make_scenes(tmp_path / "other", train=0, dev=0, test=3, seed=1, processes=1)
    assert not set(open_store(other, "test").captions) & set(open_store(folder, "test").captions)


def test_a_failure_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_late(chunk: Chunk) -> list[GeneratedScene]:
        made = generate_chunk(chunk)
        if chunk.split == "test":
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(scenes_package, "generate_chunk", fail_late)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path / "scenes", train=2, dev=1, test=1, processes=1)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_no_folder_that_looks_complete(tmp_path: Path) -> None:
    code = "import pathlib, sys, tshsr.data.generated as s; s.make_scenes(pathlib.Path(sys.argv[1]), processes=1)"
    target = tmp_path / "scenes"
    with forked(program, code, str(target)) as process:
        assert eventually(lambda: bool(list(tmp_path.glob("*/pictures/*.png"))))
        process.kill()
    assert list(tmp_path.glob("*/pictures/*.png"))
    assert not target.exists()
    assert make_scenes(target, train=1, dev=0, test=0, processes=1) == target
    assert len(open_store(target, "train").regions) == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for the processes in /proc")
def test_drawing_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """A chunk that does not end by itself: a process that is still there did not notice the kill."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys, tshsr.data.generated as s\n"
        "s.CHUNK_SCENES = 99_999\n"
        "if __name__ == '__main__':\n"
        "    s.make_scenes(pathlib.Path(sys.argv[1]), train=99_999, dev=99_999, test=0, processes=2)\n"
    )
    with subprocess.Popen([sys.executable, str(script), str(tmp_path / "scenes")]) as process:
        assert eventually(lambda: len({path.name[:3] for path in tmp_path.glob("*/pictures/*.png")}) == 2)
        drawing = children(process.pid)
        process.send_signal(signal.SIGKILL)
    assert len(drawing) >= 2
    assert eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in drawing))


def children(process: int) -> list[int]:
    """Child processes; in a line of /proc/PID/stat the parent is the second word after the bracketed name."""
    lines = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [int(line.split()[0]) for line in lines if int(line.rpartition(")")[2].split()[1]) == process]


def eventually(happens: Callable[[], bool], seconds: float = 300) -> bool:
    """Whether something happens within a time that is long on any machine."""
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_drawing_reports_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_package, "CHUNK_SCENES", 2)
    reported: list[tuple[int, int]] = []
    make_scenes(tmp_path / "made", train=3, dev=1, test=0, processes=1, progress=lambda *step: reported.append(step))
    assert reported == [(2, 4), (3, 4), (4, 4)]


def test_a_script_without_a_main_guard_runs_once(folder: Path, tmp_path: Path) -> None:
    script, made = tmp_path / "script.py", tmp_path / "made"
    script.write_text(
        "print('begun')\n"
        "import tshsr\n"
        f"tshsr.make_scenes({str(made)!r}, **{SIZES}, processes=2)\n"
        "print(__file__, __spec__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["begun", f"{script} None"]
    assert contents(made) == contents(folder)


def test_scenes_are_drawn_where_no_process_can_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scenes_package, "end_with_parent", partial(os._exit, 1))
    make_scenes(tmp_path / "made", train=2, dev=1, test=0, processes=2)
    assert "the drawing processes ended early" in caplog.text
    assert len(open_store(tmp_path / "made", "train").regions) == 2


def test_a_folder_that_is_not_empty_is_refused_and_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="is the working folder, so it cannot be replaced; name another folder"):
        make_scenes(".", train=1, dev=0, test=0)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"is already there and not empty; name a new folder for the scenes"):
        make_scenes(tmp_path, train=1, dev=0, test=0)
    with pytest.raises(DataError, match=r"thesis.tex is already there"):
        make_scenes(tmp_path / "thesis.tex", train=1, dev=0, test=0)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert make_scenes(tmp_path, train=0, dev=1, test=0, processes=1) == tmp_path
    assert len(open_store(tmp_path, "dev").regions) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": -1}, "train is -1 scenes; expected 0 to 99999"),
        ({"test": 100_000}, "test is 100000 scenes; expected 0 to 99999"),
        ({"train": 0, "dev": 0, "test": 0}, "train, dev and test are all 0 scenes; expected at least one"),
        ({"seed": -2}, "seed is -2; expected 0 or more"),
        ({"processes": 0}, "processes is 0; expected at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_scenes(tmp_path / "scenes", **settings)
    assert not (tmp_path / "scenes").exists()
