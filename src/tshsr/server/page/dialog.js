// The full explanation of one pair in a dialog: words, both streams, every level.
import { connect } from "/explanation.js";
import { chance, decimal } from "/figures.js";
import { SCORES, STREAMS } from "/labels.js";
import { element, framed } from "/picture.js";

const label = (name) => SCORES[name] || name.replaceAll("_", " ").replace(/^./, (letter) => letter.toUpperCase());
const $ = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`#why [data-switch="${name}"] input:checked`)?.value;

/** Draw an explanation; the chosen stream and level stay as they were. */
export function draw(answer, source, description) {
  const { explanation } = answer;
  const { boxes, streams } = explanation;
  const names = Object.keys(streams);
  $("why-title").textContent = explanation.caption;
  const ratio = answer.width && answer.height ? answer.width / answer.height : 4 / 3;
  const { frame, light } = framed(source, ratio, description);
  $("stage").replaceChildren(frame);
  fill($("streams"), "stream", names.map((name) => [name, STREAMS[name] || label(name)]), chosen("stream"));
  const count = names.length ? streams[names[0]].levels.length + 1 : 0;
  const levels = Array.from({ length: count }, (_, level) => [String(level), level ? `Level ${level - 1}` : "All levels"]);
  fill($("levels"), "level", levels, chosen("level"));
  $("why-words").replaceChildren(...(names.length ? explanation.words.map(wordButton) : []));
  drawTerms(streams);
  drawScores(explanation.scores, answer.probability);
  if (names.length) {
    const display = (row) => light(boxes ? boxes.map((box, region) => [...box, row[region]]) : []);
    const note = boxes ? "" : " These pictures were indexed without boxes, so no region can be drawn.";
    connect($("explanation"), streams, display, note);
  } else {
    $("explanation").onchange = null;
    $("why-status").textContent = "This method provides no trace, so there are no maps.";
  }
}

function fill(fieldset, name, choices, wanted) {
  fieldset.hidden = choices.length < 2;
  const known = choices.some(([value]) => value === wanted) ? wanted : choices[0]?.[0];
  const labels = choices.map(([value, text]) => {
    const input = element("input", { type: "radio", name, value });
    input.checked = value === known;
    return element("label", {}, input, element("span", {}, text));
  });
  fieldset.replaceChildren(fieldset.querySelector("legend"), ...labels);
}

const wordButton = (word) => element("button", { type: "button", class: "word" }, element("bdi", {}, word));

/** Terms of the logit of each stream: levels, v·t and the bias, as bars around zero on one scale. */
function drawTerms(streams) {
  const parts = Object.entries(streams).map(([name, stream]) => [name, stream, [
    ...stream.levels.map((level, n) => [`Level ${n}`, level.contribution]), ["Pooled (v·t)", stream.pooled], ["Bias", stream.bias],
  ]]);
  const largest = Math.max(...parts.flatMap(([, , rows]) => rows.map(([, value]) => Math.abs(value)))) || 1;
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  $("sums").replaceChildren(...parts.map(([name, stream, rows]) => {
    const bars = rows.flatMap(([text, value]) => {
      const filled = element("span");
      filled.style.left = `${50 + 50 * Math.min(value / largest, 0)}%`;
      filled.style.width = `${50 * Math.abs(value) / largest}%`;
      return [element("dt", {}, text), element("dd", {}, element("span", { class: "bar" }, filled), element("span", { class: "value" }, signed(value)))];
    });
    const sum = rows.reduce((total, [, value]) => total + value, 0);
    return element("section", { class: name }, element("h3", {}, `${label(name).replace(/ alone$/, "")}: terms of the logit`),
      element("dl", { class: "contributions" }, ...bars),
      element("p", { class: "note" }, `Sum ${signed(sum)}; score ${decimal(stream.score)}`));
  }));
}

function drawScores(scores, probability) {
  const order = Object.keys(SCORES);
  const place = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  const names = Object.keys(scores).sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  const rows = names.map((name) => [label(name), decimal(scores[name])]);
  if (probability !== null) rows.unshift(["Probability of a match", chance(probability)]);
  $("scores").replaceChildren(...rows.map(([name, figure]) => element("tr", {},
    element("th", { scope: "row" }, name), element("td", {}, figure))));
}
