"""The explanation page: well-formed, escaped, complete without network access, a picture or boxes."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from tests.support.scripted import TracelessMatcher, image, real, retriever, scripted
from tests.support.whole_page import EVIL, Page, assert_whole
from tshsr.errors import InputError
from tshsr.explain.attribution import Explanation, explain_pair
from tshsr.metrics.labels import label
from tshsr.pages.document import EmbeddedPicture, embed_pictures, json_script, percent, render_macro
from tshsr.pages.explanation import canvas_of, render_explanations

CAPTION = "a small red square"


def explained(caption: str = CAPTION, regions: int = 4, **settings: object) -> Explanation:
    boxes = bool(settings.pop("boxes", True))
    return explain_pair(real([caption], **settings), image(regions, boxes=boxes), caption)


def picture(colour: str = "teal") -> Image.Image:
    return Image.new("RGB", (64, 48), colour)


def test_a_page_is_well_formed_and_has_a_button_for_each_word() -> None:
    page = assert_whole(render_explanations([explained(), explained("two red circles")], [picture(), picture("navy")]))
    assert len(page.of("button", "word")) == 4 + 3
    assert len(page.of("rect", "box")) == 2 * 4
    assert len(page.of("image")) == 2
    assert page.of("meta")[1]["content"].startswith("default-src 'none'")


def test_captions_are_escaped() -> None:
    text = render_explanations([explained(EVIL)], [picture()])
    page = assert_whole(text)
    assert len(page.of("script")) == 2  # the data and ours
    assert 'alert("1")' not in text
    assert EVIL in "".join(page.text)


def test_words_are_escaped() -> None:
    words = ("<b>", "</button>", "<img src=x>", "&amp;")
    page = assert_whole(render_explanations([replace(explained(), words=words)], [None]))
    assert page.of("b") == []
    assert page.of("img") == []
    assert [word for word in page.text if word in words] == [*words, *words, *words]  # buttons, table, what words add


def test_the_data_of_a_page_cannot_end_its_element() -> None:
    text = json_script({"word": "</script><b>"})
    assert Page(text).elements == [("script", {"type": "application/json"})]
    assert json.loads(text.removeprefix('<script type="application/json">').removesuffix("</script>")) == {
        "word": "</script><b>"
    }


def test_the_data_hold_the_weights_of_all_levels_and_of_each() -> None:
    explanation = explained()
    data = re.search(r'<script type="application/json">(.*?)</script>', render_explanations([explanation], [None]))
    assert data is not None
    weights = json.loads(data[1])["region_stream"]
    stream = explanation.streams["region_stream"]
    assert len(weights["levels"]) == len(stream.levels)
    assert weights["word_regions"] == [[round(weight, 5) for weight in row] for row in stream.word_regions]
    for level, expected in zip(weights["levels"], stream.levels, strict=True):
        assert level["word_regions"] == [[round(weight, 5) for weight in row] for row in expected.word_regions]


def test_a_word_shows_its_share_of_the_weight_averaged_over_levels() -> None:
    explanation = explained()
    buttons = assert_whole(render_explanations([explanation], [None])).of("button", "word")
    levels = explanation.streams["word_stream"].levels
    mean = [sum(sum(level.word_regions[word]) for level in levels) / 3 for word in range(4)]
    assert [button["title"] for button in buttons] == [f"{percent(share)} of the weight" for share in mean]
    assert [button["style"] for button in buttons] == [f"--w:{share / max(mean):.3f}" for share in mean]
    assert [button["aria-pressed"] for button in buttons].index("true") == mean.index(max(mean))


def test_without_a_picture_the_boxes_are_drawn_on_an_empty_canvas() -> None:
    page = assert_whole(render_explanations([explained()], [None]))
    assert len(page.of("rect", "empty")) == 1
    assert len(page.of("rect", "box")) == 4
    assert page.of("image") == []


def test_without_boxes_the_map_is_a_table() -> None:
    page = assert_whole(render_explanations([explained(boxes=False)], [picture()]))
    assert page.of("rect", "box") == []
    assert len(page.of("td")) >= 4 * 4
    assert "no boxes" in "".join(page.text)


@pytest.mark.parametrize("levels", [0, 2])
def test_one_word_and_one_region_make_a_page(levels: int) -> None:
    page = assert_whole(render_explanations([explained("square", 1, levels=levels)], [picture()]))
    assert len(page.of("button", "word")) == 1
    assert len(page.of("rect", "hole")) == 1


@pytest.mark.parametrize("stream", ["word", "region"])
def test_one_stream_makes_a_page_with_one_choice(stream: str) -> None:
    page = assert_whole(render_explanations([explained(streams=stream)], [picture()]))
    choices = [radio["value"] for radio in page.of("input") if (radio["name"] or "").endswith("-stream")]
    assert choices == [f"{stream}_stream"]
    assert page.of("article")[0]["data-stream"] == f"{stream}_stream"


def test_a_method_without_a_trace_shows_its_scores() -> None:
    tokenizer = scripted([CAPTION], {}).tokenizer
    silent = retriever(TracelessMatcher(len(tokenizer), {}, {1: 2.5}), tokenizer)
    page = assert_whole(render_explanations([explain_pair(silent, image(2), "a mauve square")], [picture()]))
    assert "provides no trace" in "".join(page.text)
    assert "2.500" in page.text


def test_a_page_lists_the_relevance_of_words_and_of_the_most_relevant_regions() -> None:
    explanation = replace(
        explained(regions=8),
        word_relevance=(0.5, -1.0, 0.25, 0.0),
        region_relevance=(0.0, 1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0),
    )
    page = assert_whole(render_explanations([explanation], [None]))
    text = "".join(page.text).replace("\n", "")
    first, second = text.index("Relevance of words"), text.index("Regions of largest relevance")
    assert text[first:second].removeprefix("Relevance of words") == "a+0.50small-1.00red+0.25square+0.00"
    shown = "Region 7+7.00Region 6-6.00Region 5+5.00Region 4-4.00Region 3+3.00Region 2-2.00"
    assert text[second:].removeprefix("Regions of largest relevance").startswith(shown)


def test_contributions_are_bars_that_fit_their_track() -> None:
    page = assert_whole(render_explanations([explained()], [None]))
    bars = [style for tag, found in page.elements if tag == "span" and "left:" in (style := found.get("style") or "")]
    assert len(bars) == 2 * (3 + 2) + 4 + 4  # two streams: three read-outs, v·t and the bias; words and regions
    ends = [tuple(map(float, re.findall(r"[\d.]+", style))) for style in bars]
    assert all(left >= 0 and left + width <= 100.05 for left, width in ends)
    assert max(width for _, width in ends) == pytest.approx(50, abs=0.1)


def test_the_largest_weight_is_lit_most() -> None:
    embedded = EmbeddedPicture("p", (200, 100), 200, 100, "data:,")
    canvas = canvas_of("m", embedded, ((0, 0, 0.5, 1), (0.5, 0.5, 1, 1)), (0.2, 0.8))
    drawing = render_macro("explanation.html.jinja", "canvas", canvas)
    holes = re.findall(
        r'class="hole" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" style="--w:([\d.]+)"', drawing
    )
    assert [tuple(map(float, hole)) for hole in holes] == [(0, 0, 50, 50, 0.25), (50, 25, 50, 25, 1)]
    assert 'aria-label="region 1 80 %, region 0 20 %"' in drawing


def test_a_large_picture_is_made_small_and_drawings_stay_png() -> None:
    large = embed_pictures({"p": Image.new("RGBA", (4000, 1000), "red")}, side=400)
    symbols = render_macro("pictures.html.jinja", "symbols", large.values())
    assert 'viewBox="0 0 400 100"' in symbols
    assert "data:image/png;base64," in symbols
    assert large["p"].size == (4000, 1000)
    noise = Image.effect_noise((300, 300), 90).convert("RGB")
    assert embed_pictures({"p": noise}, side=400)["p"].data.startswith("data:image/jpeg;base64,")


def test_pictures_that_do_not_fit_the_explanations_are_refused() -> None:
    with pytest.raises(InputError, match="got 1 explanations and 2 pictures"):
        render_explanations([explained()], [None, None])
    with pytest.raises(InputError, match="expected at least one explanation"):
        render_explanations([], [])


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.0099, "<1 %"), (0.01, "1 %"), (0.614, "61 %"), (1.0, "100 %")]
)
def test_shares_read_as_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_names_of_scores_read_well() -> None:
    assert [label(name) for name in ("fused", "level_2", "dev_rsum")] == ["Both streams, fused", "Level 2", "Dev rsum"]


def test_what_the_whole_picture_and_caption_add_stands_beside_words_and_regions() -> None:
    plain = explained()
    for whole, said in ((0.0, "and v·t together."), (0.25, "The whole picture and caption add +0.25 beside them.")):
        terms = (whole + 0.5, whole - 0.5)
        streams = {
            name: replace(stream, whole=term) for (name, stream), term in zip(plain.streams.items(), terms, strict=True)
        }
        page = "".join(assert_whole(render_explanations([replace(plain, streams=streams)], [picture()])).text)
        assert said in page
        assert ("picture and caption add" in page) == bool(whole)
