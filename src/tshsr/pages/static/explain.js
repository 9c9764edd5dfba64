"use strict";
// Makes each explanation answer: a word under the pointer, in focus or tapped lights its regions.
for (const root of document.querySelectorAll(".explanation")) {
  const source = root.querySelector('script[type="application/json"]');
  if (source) enliven(root, JSON.parse(source.textContent).views);
}

function enliven(root, views) {
  const words = [...root.querySelectorAll(".word")];
  const holes = [...root.querySelectorAll(".hole")];
  const boxes = [...root.querySelectorAll(".box")];
  const lines = [...root.querySelectorAll(".matrix tbody tr")];
  const status = root.querySelector(".status");
  const canvas = root.querySelector(".canvas");
  let pinned = words.findIndex((word) => word.getAttribute("aria-pressed") === "true");

  const chosen = (name) => root.querySelector(`[data-switch="${name}"] input:checked`);
  const percent = (share) => (share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`);

  function show(word) {
    const stream = chosen("stream").value;
    const view = views[stream][Number(chosen("level").value)] || views[stream][0];
    const largestShare = Math.max(...view.shares) || 1;
    words.forEach((button, i) => {
      button.style.setProperty("--w", view.shares[i] / largestShare);
      button.title = `${percent(view.shares[i])} of the weight`;
      button.classList.toggle("lit", i === word);
      button.setAttribute("aria-pressed", String(i === pinned));
    });
    // All levels: each word has its own distribution. One level: all words share one, and a light word stays light.
    const together = Math.max(...view.rows.flat());
    lines.forEach((line, i) => {
      paint(line, view.rows[i], chosen("level").value === "0" ? Math.max(...view.rows[i]) : together);
      line.classList.toggle("selected", i === word);
    });
    light(view.rows[word]);
    root.dataset.stream = stream;
    status.textContent = describe(words[word].textContent, view, word);
  }

  function paint(line, row, largest) {
    line.querySelectorAll("td").forEach((cell, region) => {
      cell.style.setProperty("--w", row[region] / (largest || 1));
      cell.textContent = Math.round(100 * row[region]);
    });
  }

  function light(row) {
    if (!canvas) return;
    const largest = Math.max(...row) || 1;
    row.forEach((weight, region) => {
      for (const shape of [holes[region], boxes[region]]) shape.style.setProperty("--w", weight / largest);
    });
    const labels = canvas.querySelector(".labels");
    const heaviest = order(row).slice(0, 3).filter((region) => row[region] > 0.25 * largest);
    labels.replaceChildren(...heaviest.reverse().map((region) => tag(boxes[region], percent(row[region]))));
  }

  function tag(box, text) {
    const node = document.createElementNS(canvas.namespaceURI, "text");
    node.setAttribute("x", Number(box.getAttribute("x")) + 0.8);
    node.setAttribute("y", Number(box.getAttribute("y")) + 3.6);
    node.textContent = text;
    return node;
  }

  const order = (row) => row.map((_, region) => region).sort((a, b) => row[b] - row[a]);

  function describe(word, view, i) {
    const level = chosen("level").value;
    const met = order(view.rows[i]).slice(0, 3).map((region) => `region ${region} (${percent(view.rows[i][region])})`);
    const share = percent(view.shares[i]);
    return level === "0"
      ? `“${word}” met ${met.join(", ")}. It carries ${share} of the weight.`
      : `“${word}” carries ${share} of the weight on level ${level - 1}: ${met.join(", ")}.`;
  }

  words.forEach((button, i) => {
    button.addEventListener("pointerenter", () => show(i));
    button.addEventListener("pointerleave", () => show(pinned));
    button.addEventListener("focus", () => show(i));
    button.addEventListener("blur", () => show(pinned));
    button.addEventListener("click", () => { pinned = i; show(i); });
  });
  root.addEventListener("change", () => show(pinned));
  show(pinned);
}
