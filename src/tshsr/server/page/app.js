// Search by a sentence or a picture; explanations of the results.
import { draw } from "/dialog.js";
import { chance, decimal } from "/figures.js";
import { onKeys } from "/keys.js";
import { element, framed } from "/picture.js";

const PAGE = 24;
const STATUS_DELAY = 150; // milliseconds before the status reads "Searching…"
const $ = (id) => document.getElementById(id);
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const takesPictures = () => !about.uploads && about.captions > 0;
const address = (id, side) => `/api/picture?${new URLSearchParams({ id, side })}`;

let about = { results: 100, query_characters: 500, upload_bytes: Infinity, uploads: null, examples: [], pictures: 0, captions: 0 };
let found = []; // the results shown, each with its `light`
let query = "";
let sent = null; // the uploaded picture: {file, name, source}
let pinned = null; // index of the pinned word of the query
let lit = null; // index of the highlighted word
let opened = null; // the result in the dialog
let running = null; // aborts the request in progress
let explaining = null; // aborts the explanation in progress
let said = ""; // the status of the results shown
let pressed = false; // whether the pointer was last pressed outside the dialog

// -- requests --------------------------------------------------------------------------------------------------------
async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is “tshsr serve” still running?");
  }
  const answer = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null; // no JSON, or cut off
  });
  if (!answer && response.ok) throw new Error("The answer of the server is incomplete; try again.");
  if (!response.ok) throw new Error(sentence(answer?.error || `The server answered ${response.status} without a reason.`));
  return answer;
}

function stop() {
  running?.abort();
  explaining?.abort();
}

/** Run one request at a time: a new one aborts the previous one. */
async function withStatus(task) {
  stop();
  const controller = running = new AbortController();
  const late = setTimeout(() => { $("status").textContent = "Searching…"; document.body.setAttribute("aria-busy", "true"); }, STATUS_DELAY);
  showProblem($("problem"), "");
  try {
    await task(controller.signal);
  } catch (error) {
    if (error.name === "AbortError" || running !== controller) return;
    if (found.length || !$("asked").hidden) say(said); // the results of before stay
    else welcome();
    showProblem($("problem"), error.message);
  } finally {
    clearTimeout(late);
    if (running === controller) document.body.removeAttribute("aria-busy");
  }
}

function say(text) {
  said = $("status").textContent = text;
}

function showProblem(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

// -- a sentence ------------------------------------------------------------------------------------------------------
function search(text, count = PAGE) {
  const q = text.trim();
  stop();
  if (!q) return welcome();
  if (q.length > about.query_characters) {
    welcome();
    return showProblem($("problem"), `The query has ${q.length} characters; expected at most ${about.query_characters}. Shorten it.`);
  }
  return withStatus(async (signal) => {
    const answer = await request(`/api/search?${new URLSearchParams({ q, k: count })}`, { signal });
    closeWhy();
    forget();
    query = q;
    document.title = `${q}: search pictures`;
    drawResults(answer, count);
  });
}

function drawResults(answer, count) {
  const before = found.length && count > PAGE ? found.length : 0;
  [$("welcome").hidden, $("asked").hidden] = [true, true];
  about.pictures = answer.pictures;
  found = answer.results.map((result, place) => resultOf(result, place));
  $("results").replaceChildren(...found.map((result) => result.item));
  drawWords(answer.results[0]?.words || []);
  const number = answer.results.length;
  const unknown = answer.unknown.map((word) => `“${word}”`).join(", ");
  const time = `${Math.max(1, Math.round(1000 * answer.seconds))} ms`;
  say((number
    ? `${number} of ${about.pictures.toLocaleString("en")} pictures, best first, in ${time}.`
    : "No picture is indexed; add some with “tshsr index”.")
    + (unknown ? ` Not in the vocabulary of the model: ${unknown}.` : "")
    + (number && found[0].words.length ? " Choose a word to highlight its regions." : ""));
  $("more").hidden = number < count || count >= Math.min(about.results, about.pictures);
  $("more").onclick = () => search(query, Math.min(count + PAGE, about.results));
  if (before) found[before]?.button.focus();
}

// A calibrated network's probability, otherwise the score.
function figure(result) {
  if (result.probability === null) return { text: decimal(result.score), said: `score ${decimal(result.score)}` };
  const text = chance(result.probability);
  return { text, said: `probability of a match ${text}` };
}

function figureOf(result) {
  const { text, said } = figure(result);
  return element("span", { class: "score", title: said }, text);
}

function resultOf(result, place) {
  const name = result.file || result.id;
  const ratio = result.width && result.height ? result.width / result.height : 4 / 3;
  const known = Boolean(result.width);
  const { frame, light } = framed(known ? address(result.id, 480) : null, ratio, `Result ${place + 1}: ${name}`);
  const button = element("button", { type: "button", class: "open", "aria-label": `Result ${place + 1}, ${name}, ${figure(result).said}: explain` }, frame);
  button.addEventListener("click", () => explain(place));
  const line = element("p", { class: "line" }, element("span", { class: "name", title: name }, name), figureOf(result));
  const item = element("li", { class: "result" }, button, line);
  item.style.setProperty("--ratio", Math.min(Math.max(ratio, 0.5), 2.5));
  return { ...result, name, item, button, light, source: known ? address(result.id, 1600) : null };
}

function drawWords(words) {
  [pinned, lit] = [null, null];
  $("words").hidden = !words.length;
  $("words").replaceChildren(...words.map(({ word }, i) => {
    const button = element("button", { type: "button", class: "word", "aria-pressed": "false" }, element("bdi", {}, word));
    button.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") lightWord(i); });
    button.addEventListener("pointerleave", () => lightWord(pinned));
    button.addEventListener("focus", () => lightWord(i));
    button.addEventListener("blur", () => lightWord(pinned));
    button.addEventListener("click", () => pin(pinned === i ? null : i));
    return button;
  }));
}

function pin(word) {
  pinned = word;
  lightWord(word);
}

/** Highlight the regions of a word in every picture; null highlights none. */
function lightWord(word) {
  if (word !== lit) for (const result of found) result.light(word === null ? [] : result.words[word]?.boxes || []);
  lit = word;
  [...$("words").children].forEach((button, i) => {
    button.classList.toggle("lit", i === word);
    button.setAttribute("aria-pressed", String(i === pinned));
  });
}

// -- a picture -------------------------------------------------------------------------------------------------------
function send(file) {
  if (!file) return showProblem($("problem"), "No picture file. Drop a file such as a .jpg or .png; addresses of pictures are not fetched.");
  if (!takesPictures()) {
    const reason = about.uploads || "no captions are indexed, so that none can be found for a picture.";
    return showProblem($("problem"), `Pictures can't be uploaded to this server: ${reason}`);
  }
  if (file.size > about.upload_bytes) {
    const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    return showProblem($("problem"), `“${file.name}” has ${megabytes(file.size)}; this server takes pictures of up to ${megabytes(about.upload_bytes)}.`);
  }
  return withStatus(async (signal) => {
    const form = new FormData();
    form.append("picture", file);
    form.append("k", "10");
    const answer = await request("/api/search", { method: "POST", body: form, signal });
    closeWhy();
    forget();
    sent = { file, name: file.name || "your picture", source: URL.createObjectURL(file) };
    clear();
    $("q").value = "";
    document.title = `${sent.name}: captions`;
    if (location.search) history.pushState(null, "", "/"); // the URL is not that of the sentence of before
    drawSentences(answer);
  });
}

function forget() {
  if (sent) URL.revokeObjectURL(sent.source);
  sent = null;
}

function drawSentences(answer) {
  about.captions = answer.captions;
  $("asked").hidden = false;
  $("sent").replaceChildren(framed(sent.source, 4 / 3, `Your picture, ${sent.name}`).frame, element("p", { class: "note" }, sent.name));
  $("sentences").replaceChildren(...answer.results.map((result) => {
    const button = element("button", { type: "button", class: "sentence", dir: "auto" }, result.caption);
    button.addEventListener("click", () => explainSent(result.caption));
    return element("li", {}, button, figureOf(result));
  }));
  const time = Math.max(1, Math.round(1000 * answer.seconds));
  say(`${answer.results.length} of ${about.captions.toLocaleString("en")} captions, best first, in ${time} ms. Choose one for its explanation.`);
  $("sentences").querySelector("button")?.focus({ focusVisible: false });
}

// -- explanation -------------------------------------------------------------------------------------------------------------
function explain(place, text = query) {
  const result = opened = found[place];
  [$("before").disabled, $("after").disabled] = [place === 0, place === found.length - 1];
  $("before").onclick = () => explain(place - 1);
  $("after").onclick = () => explain(place + 1);
  $("another").onsubmit = (event) => { event.preventDefault(); explain(place, $("sentence").value); };
  const path = `/api/explain?${new URLSearchParams({ id: result.id, q: text })}`;
  return explained((signal) => request(path, { signal }), result.source, result.name, text);
}

function explainSent(text) {
  const shown = opened = sent;
  [$("before").disabled, $("after").disabled] = [true, true];
  $("another").onsubmit = (event) => { event.preventDefault(); explainSent($("sentence").value); };
  const form = new FormData();
  form.append("picture", shown.file);
  form.append("q", text);
  return explained((signal) => request("/api/explain", { method: "POST", body: form, signal }), shown.source, shown.name, text);
}

/** Show one explanation at a time: a new one, or another search, aborts the previous one. */
async function explained(send, source, name, text) {
  explaining?.abort();
  const { signal } = explaining = new AbortController();
  showProblem($("why-problem"), "");
  $("sentence").value = text;
  try {
    const answer = await send(signal);
    if (signal.aborted) return;
    draw(answer, source, name);
    $("why-name").textContent = name;
    $("explanation").hidden = false;
  } catch (error) {
    if (signal.aborted) return;
    if (!$("why").open) {
      $("why-title").textContent = text;
      $("explanation").hidden = true;
    }
    showProblem($("why-problem"), error.message);
  }
  if (!$("why").open) {
    $("why").showModal();
    $("why").scrollTop = 0;
  }
}

/** Close the dialog and return the focus at once: the close event is later, and would override a focus set by the next key. */
function closeWhy() {
  explaining?.abort();
  if (!$("why").open) return;
  const origin = opened?.button || $("q");
  opened = null;
  $("why").close();
  origin.focus();
}

/** Whether a pointer is on the backdrop; keys, which click buttons at 0, 0, have another target. */
function outsideWhy({ target, clientX, clientY }) {
  const { left, right, top, bottom } = $("why").getBoundingClientRect();
  return target === $("why") && (clientX < left || clientX > right || clientY < top || clientY > bottom);
}

// -- start page --------------------------------------------------------------------------------------------------
function clear() {
  [query, found] = ["", []];
  $("results").replaceChildren();
  drawWords([]);
  [$("more").hidden, $("welcome").hidden, $("asked").hidden] = [true, true, true];
}

function welcome() {
  clear();
  showProblem($("problem"), "");
  document.title = "Search pictures";
  say("");
  $("welcome").hidden = false;
  $("collection").textContent = about.pictures
    ? `${about.pictures.toLocaleString("en")} ${about.pictures === 1 ? "picture is" : "pictures are"} indexed.`
    : "No picture is indexed yet; add some with “tshsr index”.";
  $("tries").hidden = !about.examples.length;
  $("examples").replaceChildren(...about.examples.map((text) => {
    const button = element("button", { type: "button", dir: "auto" }, text);
    button.addEventListener("click", () => visit(text));
    return element("li", {}, button);
  }));
}

/** Search a sentence and put it into the URL, so that it can be reloaded, shared and returned to. */
function visit(text) {
  const wanted = text.trim() ? `/?${new URLSearchParams({ q: text.trim() })}` : "/";
  if (wanted !== location.pathname + location.search) history.pushState(null, "", wanted);
  $("q").value = text;
  return search(text);
}

function revisit() {
  $("q").value = new URLSearchParams(location.search).get("q") || "";
  return search($("q").value);
}

// -- dropping, dark mode -----------------------------------------------------------------------------------------------
function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function toggleTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* no storage: not kept */ }
  $("theme").setAttribute("aria-pressed", String(isDark()));
}

/** Files, and addresses, which the browser would open in place of the page; text goes where it is dropped. */
function isDropped({ dataTransfer: { types }, target }) {
  return types.includes("Files") || (types.includes("text/uri-list") && !target.matches?.("input"));
}

function listen() {
  $("search").addEventListener("submit", (event) => { event.preventDefault(); visit($("q").value); });
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => { if ($("file").files.length) send($("file").files[0]); $("file").value = ""; });
  $("theme").addEventListener("click", toggleTheme);
  $("theme").setAttribute("aria-pressed", String(isDark()));
  $("close").addEventListener("click", closeWhy);
  $("why").addEventListener("pointerdown", (event) => { pressed = outsideWhy(event); });
  $("why").addEventListener("click", (event) => { if (pressed && outsideWhy(event)) closeWhy(); });
  $("why").addEventListener("cancel", (event) => { event.preventDefault(); closeWhy(); });
  $("why").addEventListener("close", () => { opened = null; });
  onKeys({ buttons: () => found.map((result) => result.button), unpin: () => pinned !== null && (pin(null), true) });
  addEventListener("popstate", () => { closeWhy(); revisit(); });
  let over = 0;
  const drag = (name, task) => addEventListener(name, (event) => { if (isDropped(event)) { event.preventDefault(); task(event.dataTransfer); } });
  drag("dragenter", ({ types }) => { over += 1; $("drop").hidden = !(takesPictures() && types.includes("Files")); });
  drag("dragleave", () => { over -= 1; if (over <= 0) { over = 0; $("drop").hidden = true; } });
  drag("dragover", () => {});
  drag("drop", ({ files }) => { over = 0; $("drop").hidden = true; closeWhy(); send(files[0]); });
  addEventListener("paste", ({ clipboardData: { files, types } }) => { if (files.length && !types.includes("text/plain")) send(files[0]); });
}

async function start() {
  listen();
  let failure = "";
  try {
    about = await request("/api/about");
  } catch (error) {
    failure = error.message;
  }
  [$("dropping").hidden, $("choose").hidden] = [!takesPictures(), !takesPictures()];
  await revisit();
  if (failure) showProblem($("problem"), failure);
}

start();
