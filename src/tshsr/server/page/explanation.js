// The full explanation of one pair in a dialog: words, both streams, every level.
import { element, framed, percent } from "/picture.js";

const NAMES = { word_stream: "Words look at regions", region_stream: "Regions look at words" };
const TITLES = { fused: "Both streams, fused", word_stream: "Word stream", region_stream: "Region stream", pooled: "Pooled vectors, v·t" };
const title = (name) => TITLES[name] || name.replaceAll("_", " ").replace(/^./, (letter) => letter.toUpperCase());
const $ = (id) => document.getElementById(id);

let views = {};
let explanation = null;
let picture = null;
let pinned = 0;

/** For each stream what is shown of all its levels and then of each: rows of weights, and the share of each word. */
function viewsOf(streams) {
  const sum = (row) => row.reduce((total, weight) => total + weight, 0);
  return Object.fromEntries(Object.entries(streams).map(([name, stream]) => {
    const levels = stream.levels.map((level) => ({ rows: level.word_regions, shares: level.word_regions.map(sum) }));
    const mean = stream.word_regions.map((_, word) => sum(levels.map((level) => level.shares[word])) / levels.length);
    return [name, [{ rows: stream.word_regions, shares: mean }, ...levels]];
  }));
}

/** Draw an explanation; the chosen stream and level stay as they were. */
export function draw(answer, source, description) {
  explanation = answer.explanation;
  views = viewsOf(explanation.streams);
  const names = Object.keys(views);
  $("why-title").textContent = explanation.caption;
  const ratio = answer.width && answer.height ? answer.width / answer.height : 4 / 3;
  picture = framed(source, ratio, description);
  $("stage").replaceChildren(picture.frame);
  const kept = chosen("stream") || names[0];
  fill($("streams"), "stream", names.map((name) => [name, NAMES[name] || title(name)]), kept);
  const count = names.length ? views[names[0]].length : 0;
  const levels = Array.from({ length: count }, (_, level) => [String(level), level ? `Level ${level - 1}` : "All levels"]);
  fill($("levels"), "level", levels, chosen("level") || "0");
  const buttons = explanation.words.map((word, i) => wordButton(word, i));
  $("why-words").replaceChildren(...(names.length ? buttons : []));
  drawSums();
  drawScores();
  if (names.length) {
    const shares = views[chosen("stream")][0].shares;
    pinned = shares.indexOf(Math.max(...shares));
    show(pinned);
  } else {
    $("why-status").textContent = "This method scores pairs without a trace: there are no maps to show.";
  }
}

const chosen = (name) => document.querySelector(`#why input[name="${name}"]:checked`)?.value;

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

function wordButton(word, i) {
  const button = element("button", { type: "button", class: "word" }, element("bdi", {}, word));
  button.addEventListener("pointerenter", () => show(i));
  button.addEventListener("pointerleave", () => show(pinned));
  button.addEventListener("focus", () => show(i));
  button.addEventListener("blur", () => show(pinned));
  button.addEventListener("click", () => { pinned = i; show(i); });
  return button;
}

function show(word) {
  const stream = chosen("stream");
  const view = views[stream][Number(chosen("level"))] || views[stream][0];
  const largest = Math.max(...view.shares) || 1;
  document.querySelectorAll("#why-words .word").forEach((button, i) => {
    button.style.setProperty("--w", view.shares[i] / largest);
    button.title = `${percent(view.shares[i])} of the weight`;
    button.classList.toggle("lit", i === word);
    button.setAttribute("aria-pressed", String(i === pinned));
  });
  $("explanation").dataset.stream = stream;
  const row = view.rows[word];
  picture.light(explanation.boxes ? explanation.boxes.map((box, region) => [...box, row[region]]) : []);
  $("why-status").textContent = describe(word, view);
}

function describe(word, view) {
  const row = view.rows[word];
  const heaviest = row.map((_, region) => region).sort((a, b) => row[b] - row[a]).slice(0, 3);
  const met = heaviest.map((region) => `region ${region} (${percent(row[region])})`).join(", ");
  const [name, share] = [explanation.words[word], percent(view.shares[word])];
  const end = explanation.boxes ? "" : " These pictures were indexed without boxes, so nothing can be drawn.";
  return chosen("level") === "0"
    ? `“${name}” met ${met}. It carries ${share} of the weight.${end}`
    : `“${name}” carries ${share} of the weight on level ${chosen("level") - 1}: ${met}.${end}`;
}

/** What each level adds to the logit of a stream, as bars around zero on one scale for all streams. */
function drawSums() {
  const parts = Object.entries(explanation.streams).map(([name, stream]) => [name, stream, [
    ...stream.levels.map((level, n) => [`Level ${n}`, level.contribution]), ["Whole (v·t)", stream.pooled], ["Bias", stream.bias],
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
    return element("section", { class: name }, element("h3", {}, `${title(name)}: what adds up to the score`),
      element("dl", { class: "contributions" }, ...bars),
      element("p", { class: "note" }, `Sum ${signed(sum)}, as a score ${stream.score.toFixed(3)}`));
  }));
}

function drawScores() {
  const order = Object.keys(TITLES);
  const place = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  const names = Object.keys(explanation.scores).sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  $("scores").replaceChildren(...names.map((name) => element("tr", {},
    element("th", { scope: "row" }, title(name)), element("td", {}, explanation.scores[name].toFixed(3).replace("-", "−")))));
}

for (const id of ["streams", "levels"]) $(id).addEventListener("change", () => show(pinned));
