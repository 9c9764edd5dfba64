"""The search page in a real browser: by mouse, keyboard and touch, with its errors."""

from __future__ import annotations

import base64
from pathlib import Path

from PIL import Image

from tests.support.browser_page import QUERY, Page
from tests.support.served import PICTURES


def boxes(page: Page) -> list[float]:
    """How strongly each box that is drawn is lit."""
    script = "return [...document.querySelectorAll('.box')].map(box => Number(box.style.getPropertyValue('--w')))"
    return page.run(script)


def focused(page: Page, what: str = "id") -> str:
    return page.run(f"return document.activeElement.getAttribute({what!r})")


def test_a_new_user_finds_pictures_with_one_click(page: Page) -> None:
    assert f"{PICTURES} pictures are indexed." in page.text("#collection")
    examples = page.all("#examples button")
    assert 1 <= len(examples) <= 6
    text = examples[0].text
    examples[0].click()
    page.wait(lambda: page.has(".result"))
    assert len(page.all(".result")) == PICTURES
    assert page.text("#status").startswith(f"{PICTURES} of {PICTURES} pictures, best first, in ")
    assert page.one("#q").get_attribute("value") == text
    assert "?q=" in page.chrome.current_url
    loaded = "return [...document.querySelectorAll('.result img')].filter(image => image.naturalWidth > 0).length"
    page.wait(lambda: page.run(loaded) == PICTURES)
    scores = [float(score.text) for score in page.all(".result .score")]
    assert scores == sorted(scores, reverse=True)


def test_a_url_with_a_query_can_be_opened_and_returned_from(page: Page) -> None:
    page.open("?q=a+red+circle")
    assert page.one("#q").get_attribute("value") == "a red circle"
    page.search(QUERY)
    page.chrome.back()
    page.wait(lambda: page.chrome.title.startswith("a red circle:"))
    assert page.one("#q").get_attribute("value") == "a red circle"


def test_the_number_of_pictures_is_that_of_the_search(page: Page) -> None:
    page.run(
        "const plain = Response.prototype.json; Response.prototype.json = async function () {"
        " return { ...await plain.call(this), pictures: 1234 }; }"
    )
    page.search(QUERY)
    assert page.text("#status").startswith(f"{PICTURES} of 1,234 pictures")


def test_a_failed_search_leaves_the_results(page: Page) -> None:
    page.search(QUERY)
    status = page.text("#status")
    page.run("window.fetch = () => Promise.reject(new Error())")
    page.one("#q").send_keys(" again\n")
    assert page.problem().startswith("The server does not answer.")
    assert len(page.all(".result")) == PICTURES
    assert page.text("#status") == status


def test_a_very_high_picture_is_as_high_as_others_may_be_and_transparency_is_white(page: Page) -> None:
    page.search(QUERY)
    page.wait(lambda: page.has(".frame.loaded"))
    shown = "return getComputedStyle(document.querySelector('.frame.loaded img')).backgroundColor"
    assert page.run(shown) == "rgb(255, 255, 255)"
    script = """
    document.querySelector(".result").style.setProperty("--ratio", 0.5);
    document.querySelector(".open .frame").style.setProperty("--ratio", 0.016);
    return document.querySelector(".open .frame").clientHeight / parseFloat(getComputedStyle(document.body).fontSize);
    """
    assert 0 < page.run(script) < 13 * 2


def test_a_word_under_the_pointer_highlights_its_regions_in_every_picture(page: Page) -> None:
    page.search(QUERY)
    assert boxes(page) == []
    words = page.all("#words .word")
    assert [word.text for word in words] == ["red", "circle", "blue", "square"]
    page.point_at(words[0])
    page.wait(lambda: page.has(".box"))
    lit = boxes(page)
    assert len(page.all(".frame.lit")) == PICTURES
    assert max(lit) == 1
    assert all(0 < weight <= 1 for weight in lit)
    assert all(label.text.endswith(" %") for label in page.all(".labels span"))
    page.point_at(page.one("#status"))
    page.wait(lambda: not page.has(".box"))


def test_a_clicked_word_stays_highlighted_until_escape(page: Page) -> None:
    page.search(QUERY)
    page.all("#words .word")[1].click()
    page.point_at(page.one("#status"))
    assert page.has(".box")
    assert page.all("#words .word")[1].get_attribute("aria-pressed") == "true"
    page.press("\ue00c")
    page.point_at(page.one("#status"))
    page.run("document.activeElement.blur()")
    page.wait(lambda: not page.has(".box"))


def test_a_result_is_explained_by_both_streams_and_every_level(page: Page) -> None:
    page.search(QUERY)
    page.one(".open").click()
    page.wait(lambda: page.has("#why[open]"))
    assert page.text("#why-title") == QUERY
    assert [word.text for word in page.all("#why-words .word")] == QUERY.split()
    assert page.has("#stage .box")
    said = page.text("#why-status")
    assert "of the weight: region " in said
    page.all("#streams label")[1].click()
    assert page.text("#why-status") != said
    page.all("#levels label")[1].click()
    page.wait(lambda: "on level 0" in page.text("#why-status"))
    page.all("#why-words .word")[5].click()
    assert page.text("#why-status").startswith("“blue” carries ")
    assert [row.text.split()[-1] for row in page.all("#scores tr")]
    assert "Both streams, fused" in page.text("#scores")
    page.one("#close").click()
    assert not page.has("#why[open]")


SLOW_EXPLANATION = """
const plain = window.fetch;
window.fetch = async (path, options) => {
  if (!path.startsWith("/api/explain")) return plain(path, options);
  window.fetch = plain;
  const answer = await plain(path);
  window.answered = () => new Promise((resolve) => { setTimeout(resolve, 50); window.give(answer); });
  return new Promise((resolve, reject) => {
    window.give = resolve;
    options?.signal?.addEventListener("abort", () => reject(options.signal.reason));
  });
};
"""


def test_an_explanation_that_comes_late_does_not_open_over_another_search(page: Page) -> None:
    page.search(QUERY)
    page.run(SLOW_EXPLANATION)
    page.one(".open").click()
    page.wait(lambda: page.run("return 'give' in window"))
    page.search("a red circle")
    page.run("return answered()")
    assert not page.has("#why[open]")


def test_back_closes_the_explanation(page: Page) -> None:
    page.search("a red circle")
    page.search(QUERY)
    page.one(".open").click()
    page.wait(lambda: page.has("#why[open]"))
    page.chrome.back()
    page.wait(lambda: page.chrome.title.startswith("a red circle:"))
    assert not page.has("#why[open]")


def test_only_a_press_and_release_on_the_backdrop_closes_the_explanation(page: Page) -> None:
    page.search(QUERY)
    page.one(".open").click()
    page.wait(lambda: page.has("#why[open]"))
    box = page.one("#why").rect
    inside, outside = (round(box["x"]) + 6, 450), (round(box["x"]) - 6, 450)
    for start, end in ((inside, inside), (inside, outside), (outside, inside)):
        page.drag(start, end)
        assert page.has("#why[open]"), (start, end)
    page.drag(outside, outside)
    assert not page.has("#why[open]")


def test_scores_and_probabilities_in_the_explanation_are_never_rounded_to_nothing(page: Page) -> None:
    script = """
    const [{ draw }, { decimal }] = [await import("/dialog.js"), await import("/figures.js")];
    const found = await (await fetch("/api/search?q=red&k=1")).json();
    const path = `/api/explain?${new URLSearchParams({ q: "red", id: found.results[0].id })}`;
    draw({ ...await (await fetch(path)).json(), probability: 0.124 }, null, "");
    return [document.querySelector("#scores tr").textContent, ...[0.000123, -0.0004, 0, 0.25].map(decimal)];
    """
    found = page.run(f"return (async () => {{ {script} }})()")
    assert found == ["Probability of a match12\u00a0%", "0.00012", "\u22120.00040", "0.000", "0.250"]


def test_another_sentence_can_be_tried_on_the_same_picture(page: Page) -> None:
    page.search(QUERY)
    page.one(".open").click()
    page.wait(lambda: page.has("#why[open]"))
    box = page.one("#sentence")
    box.clear()
    box.send_keys("three green triangles\n")
    page.wait(lambda: page.text("#why-title") == "three green triangles")
    page.refusals = True
    box.clear()
    box.send_keys("?\n")
    page.wait(
        lambda: (
            page.text("#why-problem") == "The query has no word; expected a sentence such as 'two dogs in the snow'."
        )
    )


def test_everything_can_be_done_from_the_keyboard(page: Page) -> None:
    enter, escape, left, right, down, tab = "\ue007", "\ue00c", "\ue012", "\ue014", "\ue015", "\ue004"
    page.run("document.activeElement.blur()")
    page.press("/")
    assert focused(page) == "q"
    assert page.one("#q").get_attribute("value") == "", "the slash is no part of the query"
    page.press(QUERY, enter)
    page.wait(lambda: page.has(".result"))
    page.press(down)
    assert focused(page, "aria-label").startswith("Result 1,")
    page.press(right, right, left)
    assert focused(page, "aria-label").startswith("Result 2,")
    page.press(down)
    assert not focused(page, "aria-label").startswith("Result 2,")
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid", "where the focus is"
    page.run("document.querySelectorAll('.open')[1].focus()")
    page.press(enter)
    page.wait(lambda: page.has("#why[open]"))
    name = page.text("#why-name")
    page.press(right)
    page.wait(lambda: page.text("#why-name") != name)
    page.press(left)
    page.wait(lambda: page.text("#why-name") == name)
    page.press(escape)
    page.wait(lambda: not page.has("#why[open]"))
    assert focused(page, "aria-label").startswith("Result 2,"), "where one was"
    page.press(escape)
    assert focused(page) == "q"
    page.press(tab, tab, tab, tab)
    assert focused(page, "class").startswith("word")
    page.wait(lambda: page.has(".box"))


def test_a_picture_from_the_file_dialog_finds_captions_and_their_explanations(page: Page, picture: Path) -> None:
    page.send(picture)
    page.wait(lambda: page.has(".sentence"))
    assert len(page.all(".sentence")) == 10
    assert page.wait(lambda: page.run("return document.querySelector('#sent img').naturalWidth") > 0)
    text = page.one(".sentence").text
    page.one(".sentence").click()
    page.wait(lambda: page.has("#why[open]"))
    assert page.text("#why-title") == text
    assert page.has("#stage .box")
    assert page.one("#stage img").get_attribute("src").startswith("blob:")


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), letter => letter.charCodeAt(0));
const carried = new DataTransfer();
if (bytes.length) carried.items.add(new File([bytes], arguments[1]));
else carried.setData("text/uri-list", "https://example.org/x.jpg");
for (const name of ["dragenter", "dragover", "drop"]) {
  document.body.dispatchEvent(new DragEvent(name, { dataTransfer: carried, bubbles: true, cancelable: true }));
  if (name === "dragover") window.shownWhileOver = !document.getElementById("drop").hidden;
}
return window.shownWhileOver;
"""


def test_a_dropped_picture_finds_captions(page: Page, picture: Path) -> None:
    assert page.run(DROP, base64.b64encode(picture.read_bytes()).decode(), "dropped.png") is True
    page.wait(lambda: page.has(".sentence"))
    assert "dropped.png" in page.text("#sent")
    assert not page.one("#drop").is_displayed()


def test_captions_of_a_picture_replace_the_sentence_in_title_and_url(page: Page, picture: Path) -> None:
    page.search(QUERY)
    page.run(
        "window.freed = 0; const free = URL.revokeObjectURL;"
        "URL.revokeObjectURL = (url) => { freed += 1; free.call(URL, url); }"
    )
    page.send(picture)
    page.wait(lambda: page.has(".sentence"))
    assert page.chrome.title == f"{picture.name}: captions"
    assert "?" not in page.chrome.current_url
    page.chrome.back()
    page.wait(lambda: page.chrome.title.startswith(QUERY))
    assert page.run("return freed") == 1


def test_without_captions_no_picture_is_invited_or_sent(page: Page) -> None:
    script = """
    const json = Response.prototype.json;
    Response.prototype.json = async function () { return { ...await json.call(this), captions: 0 }; };
    """
    made = page.chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page.open("?q=red")
    finally:
        page.chrome.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)
    assert page.run(DROP, base64.b64encode(b"x").decode(), "dropped.png") is False
    assert "no captions are indexed" in page.problem()
    assert len(page.all(".result")) == PICTURES


def test_text_is_dropped_and_pasted_as_text(page: Page) -> None:
    script = """
    window.fetch = () => { throw new Error(); };
    const carried = new DataTransfer();
    carried.setData("text/plain", "two dogs");
    const kept = document.getElementById("q").dispatchEvent(
      new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
    carried.items.add(new File(["x"], "image.png"));
    document.getElementById("q").dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true }));
    return kept;
    """
    assert page.run(script) is True
    assert not page.one("#problem").is_displayed()


def test_a_dropped_url_is_not_fetched(page: Page) -> None:
    page.run(DROP, "", "")
    assert "addresses of pictures are not fetched" in page.problem()


def test_a_wrong_file_is_refused_with_the_reason(page: Page, tmp_path: Path) -> None:
    page.refusals = True
    note = tmp_path / "note.jpg"
    note.write_text("no picture")
    page.send(note)
    assert page.problem().startswith("The picture is no readable picture")
    page.search(QUERY)
    assert not page.one("#problem").is_displayed(), "the next question starts afresh"


def test_a_large_file_is_refused_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(b"x" * (2**20 + 1))
    page.send(large)
    assert page.problem() == "“large.png” has 1.0 MiB; this server takes pictures of up to 1.0 MiB."


def test_a_picture_with_too_many_pixels_is_refused(page: Page, tmp_path: Path) -> None:
    page.refusals = True
    Image.new("1", (10_000, 6_000)).save(tmp_path / "huge.png")
    page.send(tmp_path / "huge.png")
    assert page.problem().startswith("The picture has 10000 x 6000 pixels; expected at most 50,000,000")


def test_a_long_query_is_refused_before_it_is_sent(page: Page) -> None:
    page.run("document.getElementById('q').value = 'dog '.repeat(200)")
    page.one("#q").send_keys("\n")
    assert page.problem().startswith("The query has 799 characters; expected at most 500.")


def test_unknown_words_are_reported(page: Page) -> None:
    page.search("a red zeppelin")
    assert "Not in the vocabulary of the model: “zeppelin”." in page.text("#status")


def test_queries_are_escaped(page: Page) -> None:
    page.search("<img src=x onerror=alert(1)> red <b>circle</b>")
    page.one(".open").click()
    page.wait(lambda: page.has("#why[open]"))
    assert "<b>circle</b>" in page.text("#why-title")
    assert not page.has("main b, dialog b, img[src=x]")


def test_an_empty_query_shows_the_start_again(page: Page) -> None:
    page.search(QUERY)
    page.one("#q").clear()
    page.one("#q").send_keys("\n")
    page.wait(lambda: page.one("#welcome").is_displayed())
    assert not page.has(".result")


NEXT_ANSWER = """
const plain = window.fetch;
window.fetch = (path, { signal }) => {
  window.fetch = plain;
  const start = (body) => {
    body.enqueue(new TextEncoder().encode('{"results": ['));
    if (arguments[0]) signal.addEventListener("abort", () => body.error(signal.reason));
    else body.close();
  };
  return Promise.resolve(new Response(new ReadableStream({ start })));
};
"""


def test_a_search_that_is_aborted_while_its_answer_arrives_leaves_no_trace(page: Page) -> None:
    page.run(NEXT_ANSWER, True)
    page.one("#q").send_keys("a circle\n")
    page.search(QUERY)
    assert not page.one("#problem").is_displayed()


def test_an_answer_that_is_cut_off_is_reported(page: Page) -> None:
    page.run(NEXT_ANSWER, False)
    page.one("#q").send_keys("a circle\n")
    assert page.problem() == "The answer of the server is incomplete; try again."


def test_an_unreachable_server_is_reported(page: Page) -> None:
    page.refusals = True
    away = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.chrome.execute_cdp_cmd("Network.enable", {})
    page.chrome.execute_cdp_cmd("Network.emulateNetworkConditions", away)
    try:
        page.one("#q").send_keys("a circle\n")
        assert page.problem() == "The server does not answer. Is “tshsr serve” still running?"
    finally:
        back = away | {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
        page.chrome.execute_cdp_cmd("Network.emulateNetworkConditions", back)
