"""The explanation page, a single file, in a real browser; its script is also that of the server's page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from tests.support.scripted import image, real
from tshsr.explain.attribution import explain_pair
from tshsr.pages.document import percent
from tshsr.pages.explanation import render_explanations

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CAPTION = "a small red square"


def test_words_streams_and_levels_change_the_map_the_table_and_the_status(chrome: Chrome, tmp_path: Path) -> None:
    explanation = explain_pair(real([CAPTION]), image(4), CAPTION)
    (tmp_path / "page.html").write_text(render_explanations([explanation], [Image.new("RGB", (64, 48))]), "utf-8")
    chrome.get_log("browser")
    chrome.get((tmp_path / "page.html").as_uri())

    def texts(selector: str) -> list[str]:
        return [element.get_attribute("textContent") for element in chrome.find_elements("css selector", selector)]

    def cells() -> list[list[str]]:
        rows = texts(".matrix td")
        return [rows[start : start + 4] for start in range(0, len(rows), 4)]

    chrome.find_elements("css selector", ".word")[2].click()
    stream = explanation.streams["word_stream"]
    share = sum(sum(level.word_regions[2]) for level in stream.levels) / len(stream.levels)
    assert texts(".status")[0].startswith(f"“red” carries {percent(share)} of the weight: region ")
    assert cells() == [[f"{100 * weight:.0f}" for weight in row] for row in stream.word_regions]
    chrome.find_elements("css selector", "[data-switch=stream] label")[1].click()
    chrome.find_elements("css selector", "[data-switch=level] label")[2].click()
    level = explanation.streams["region_stream"].levels[1]
    assert texts(".status")[0].startswith(
        f"“red” carries {percent(sum(level.word_regions[2]))} of the weight on level 1"
    )
    assert cells() == [[f"{100 * weight:.0f}" for weight in row] for row in level.word_regions]
    assert chrome.find_element("css selector", ".explanation").get_attribute("data-stream") == "region_stream"
    lit = [box.get_attribute("style") for box in chrome.find_elements("css selector", ".box")]
    assert "--w: 1;" in lit[max(range(4), key=level.word_regions[2].__getitem__)]
    assert [entry for entry in chrome.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
