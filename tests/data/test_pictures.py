"""Decoding a picture file: upright RGB, or a one-sentence error."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.picture_files import drawn, png_of_size, write_rubbish
from tshsr.data.pictures import read_picture
from tshsr.errors import DataError, PictureError

RED, BLUE = (200, 0, 0), (0, 0, 200)


def two_halves() -> Image.Image:
    """Wider than high: red on the left, blue on the right."""
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(BLUE, (20, 0, 40, 20))
    return picture


def content(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_common_format_is_read_from_files_and_bytes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content(drawn(3), kind))
    read = read_picture(path)
    assert (read.mode, read.size) == ("RGB", (160, 120))
    np.testing.assert_array_equal(read, read_picture(path.read_bytes()))
    assert np.abs(np.asarray(read, int) - np.asarray(drawn(3), int)).mean() < 4


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (2, lambda pixels: pixels[:, ::-1]),
        (3, lambda pixels: pixels[::-1, ::-1]),
        (4, lambda pixels: pixels[::-1]),
        (5, lambda pixels: pixels.transpose(1, 0, 2)),
        (6, lambda pixels: np.rot90(pixels, -1)),
        (7, lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda pixels: np.rot90(pixels, 1)),
    ],
)
def test_a_picture_is_rotated_by_its_orientation(orientation: int, turned) -> None:
    picture = drawn(1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_picture(content(picture, exif=exif))
    np.testing.assert_array_equal(read, turned(np.asarray(picture)))


def test_an_invalid_orientation_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(read_picture(content(drawn(1), exif=exif)), drawn(1))


def test_transparent_pixels_become_white() -> None:
    picture = two_halves().convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 20, 20))
    read = read_picture(content(picture))
    assert read.getpixel((5, 5)) == (255, 255, 255)
    assert read.getpixel((30, 5)) == BLUE


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    read = read_picture(content(two_halves().convert("RGB" if mode == "CMYK" else "L").convert(mode), kind))
    assert read.mode == "RGB"


def test_sixteen_bits_in_grey_become_eight() -> None:
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    read = read_picture(content(Image.fromarray(values)))
    assert [read.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


@pytest.mark.parametrize("white", [1, 255])
def test_real_numbers_in_grey_are_shares_of_one_or_of_255(white: int) -> None:
    grey = Image.fromarray(np.array([[0, 0.5, 1]], np.float32) * white)
    assert np.asarray(read_picture(content(grey, "TIFF")))[0, :, 0].tolist() == [0, 127, 255]


def test_a_draft_of_a_jpeg_is_a_whole_fraction_that_suffices() -> None:
    jpeg = content(Image.new("RGB", (400, 240), RED), "JPEG")
    assert [read_picture(jpeg, draft=side).size for side in (500, 120, 50)] == [(400, 240), (200, 120), (100, 60)]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    read = read_picture(content(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert read.getpixel((4, 4)) == RED


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unreadable_pictures_are_refused_in_one_sentence(tmp_path: Path) -> None:
    for name, said in write_rubbish(tmp_path).items():
        if name == "link.jpg":
            said = "does not exist"
        with pytest.raises(PictureError) as refusal:
            read_picture(tmp_path / name)
        assert str(refusal.value).startswith(f"{tmp_path / name} ")
        assert said in str(refusal.value), name
        assert "\n" not in str(refusal.value)


def test_too_little_memory_is_no_damage_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("tshsr.data.pictures._rgb", full)
    with pytest.raises(MemoryError):
        read_picture(content(two_halves()))


def test_the_size_is_refused_before_anything_is_decoded() -> None:
    with pytest.raises(PictureError, match="the picture has 3000 x 3000 pixels; expected at most 1,000 in all"):
        read_picture(png_of_size(3000, 3000), max_pixels=1000)


def test_bytes_are_named_the_picture() -> None:
    with pytest.raises(PictureError, match=r"the picture is empty \(0 bytes\)"):
        read_picture(b"")
    with pytest.raises(DataError, match=r"the picture is no readable picture \(its format is not known here\)"):
        read_picture(b"hello")


def test_any_cut_of_a_jpeg_or_png_gives_a_whole_picture_or_a_sentence() -> None:
    for kind in ("JPEG", "PNG"):
        whole, refused = content(drawn(2), kind), 0
        for length in range(0, len(whole), 97):
            try:
                assert read_picture(whole[:length]).size == (160, 120)
            except PictureError:
                refused += 1
        assert refused > 3
