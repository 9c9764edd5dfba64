// Connects every explanation of a page to its picture and its table.
for (const root of document.querySelectorAll(".explanation")) {
  const source = root.querySelector('script[type="application/json"]');
  if (source) connect(root, JSON.parse(source.textContent), displayOn(root));
}

function displayOn(root) {
  const holes = [...root.querySelectorAll(".hole")];
  const boxes = [...root.querySelectorAll(".box")];
  const lines = [...root.querySelectorAll(".matrix tbody tr")];
  const canvas = root.querySelector(".canvas");

  return (row, word, view, allLevels) => {
    // All levels: each word has its own distribution. One level: all words share one, and a word of small weight stays dark.
    const together = Math.max(...view.rows.flat());
    lines.forEach((line, i) => {
      paint(line, view.rows[i], allLevels ? Math.max(...view.rows[i]) : together);
      line.classList.toggle("selected", i === word);
    });
    if (canvas) light(row);
  };

  function paint(line, row, largest) {
    line.querySelectorAll("td").forEach((cell, region) => {
      cell.style.setProperty("--w", row[region] / (largest || 1));
      cell.textContent = Math.round(100 * row[region]);
    });
  }

  function light(row) {
    const largest = Math.max(...row) || 1;
    row.forEach((weight, region) => {
      for (const shape of [holes[region], boxes[region]]) shape.style.setProperty("--w", weight / largest);
    });
    const heaviest = byWeight(row).slice(0, 3).filter((region) => row[region] > 0.25 * largest).reverse();
    const labels = heaviest.map((region) => tag(boxes[region], percent(row[region])));
    canvas.querySelector(".labels").replaceChildren(...labels);
  }

  function tag(box, text) {
    const node = document.createElementNS(canvas.namespaceURI, "text");
    node.setAttribute("x", Number(box.getAttribute("x")) + 0.8);
    node.setAttribute("y", Number(box.getAttribute("y")) + 3.6);
    node.textContent = text;
    return node;
  }
}
