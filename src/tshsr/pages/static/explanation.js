// One explanation, in a separate page and in the dialog of the server: the words, both streams, every level.

/** A share as text; positive shares below 0.01 as "<1 %". */
export const percent = (share) => (share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`);

/** Regions by weight, heaviest first. */
export const byWeight = (row) => row.map((_, region) => region).sort((a, b) => row[b] - row[a]);

/**
 * By stream, the view of all levels and then that of each level: weights (words x regions) and the share of each word.
 * @param {Object} streams - By name: `word_regions` of all levels, and `levels`, each with its `word_regions`.
 */
export function viewsOf(streams) {
  const sum = (row) => row.reduce((total, weight) => total + weight, 0);
  return Object.fromEntries(Object.entries(streams).map(([name, stream]) => {
    const levels = stream.levels.map((level) => ({ rows: level.word_regions, shares: level.word_regions.map(sum) }));
    const mean = stream.word_regions.map((_, word) => sum(levels.map((level) => level.shares[word])) / levels.length);
    return [name, [{ rows: stream.word_regions, shares: mean }, ...levels]];
  }));
}

/**
 * Connect an explanation: the word under the pointer, in focus or pinned by a click determines what is displayed.
 * @param {Element} root - Holds switches (`[data-switch=stream]`, `[data-switch=level]`), `.word` buttons and `.status`.
 * @param {Object} streams - As in `viewsOf`.
 * @param {function(number[], number, Object, boolean): void} display - Receives the weights of the word over the
 *   regions, the word, the view, and whether the view is that of all levels.
 * @param {string} note - Appended to the status.
 */
export function connect(root, streams, display, note = "") {
  const views = viewsOf(streams);
  const words = [...root.querySelectorAll(".word")];
  const status = root.querySelector(".status");
  const chosen = (name) => root.querySelector(`[data-switch="${name}"] input:checked`).value;
  const { shares } = views[chosen("stream")][0];
  let pinned = shares.indexOf(Math.max(...shares));

  function show(word) {
    const stream = chosen("stream");
    const level = Number(chosen("level"));
    const view = views[stream][level] || views[stream][0];
    const largest = Math.max(...view.shares) || 1;
    words.forEach((button, i) => {
      button.style.setProperty("--w", view.shares[i] / largest);
      button.title = `${percent(view.shares[i])} of the weight`;
      button.classList.toggle("lit", i === word);
      button.setAttribute("aria-pressed", String(i === pinned));
    });
    root.dataset.stream = stream;
    display(view.rows[word], word, view, level === 0);
    status.textContent = describe(words[word].textContent, view, word, level) + note;
  }

  words.forEach((button, i) => {
    button.addEventListener("pointerenter", () => show(i));
    button.addEventListener("pointerleave", () => show(pinned));
    button.addEventListener("focus", () => show(i));
    button.addEventListener("blur", () => show(pinned));
    button.addEventListener("click", () => { pinned = i; show(i); });
  });
  root.onchange = () => show(pinned); // one handler, also where the dialog is filled again
  show(pinned);
}

function describe(text, view, word, level) {
  const row = view.rows[word];
  const regions = byWeight(row).slice(0, 3).map((region) => `region ${region} (${percent(row[region])})`).join(", ");
  const share = percent(view.shares[word]);
  return `“${text}” carries ${share} of the weight${level ? ` on level ${level - 1}` : ""}: ${regions}.`;
}
