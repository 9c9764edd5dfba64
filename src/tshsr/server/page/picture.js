// A picture in a frame of its proportions, with boxes that a word highlights.
import { percent } from "/explanation.js";

const SVG = "http://www.w3.org/2000/svg";
const LABELLED = 3;
const LABEL = { width: 44, height: 22 }; // approximate, in pixels
let frames = 0;

/** An element with attributes and children; strings become text nodes, never HTML. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/**
 * A frame around a picture.
 * @param {string|null} source - Its address; null draws the boxes on an empty canvas.
 * @param {number} ratio - Width by height.
 * @param {string} description - For screen readers.
 * @returns {{frame: Element, light: function(number[][]): void}} `light` takes boxes: x1, y1, x2, y2, weight.
 */
export function framed(source, ratio, description) {
  const frame = element("span", { class: "frame" });
  frame.style.setProperty("--ratio", ratio);
  if (source) {
    const image = element("img", { src: source, alt: description, loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => frame.classList.add("gone"));
    image.addEventListener("load", () => {
      frame.classList.remove("gone");
      frame.classList.add("loaded");
      frame.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    });
    frame.append(image);
  } else {
    frame.classList.add("bare");
    frame.append(element("span", { class: "missing" }, "The picture file is missing"), element("span", { class: "unseen" }, description));
  }
  const mask = `veil-${frames++}`;
  const drawing = shape("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  const labels = element("span", { class: "labels", "aria-hidden": "true" });
  frame.append(drawing, labels);

  function light(boxes) {
    drawing.replaceChildren();
    labels.replaceChildren();
    frame.classList.toggle("lit", boxes.length > 0);
    if (!boxes.length) return;
    const heaviest = [...boxes].sort((a, b) => b[4] - a[4]);
    const largest = heaviest[0][4] || 1;
    const holes = shape("mask", { id: mask, maskContentUnits: "userSpaceOnUse" });
    holes.append(shape("rect", { width: 1, height: 1, fill: "white" }));
    drawing.append(holes);
    if (source) drawing.append(shape("rect", { class: "veil", width: 1, height: 1, mask: `url(#${mask})` }));
    for (const [x1, y1, x2, y2, weight] of heaviest.slice().reverse()) {
      const place = { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) };
      holes.append(shape("rect", { ...place, "fill-opacity": weight / largest }));
      const outline = shape("rect", { ...place, class: "box" });
      outline.style.setProperty("--w", weight / largest);
      drawing.append(outline);
    }
    write(heaviest.slice(0, LABELLED).filter((box) => box[4] > 0.25 * largest));
  }

  /** Labels with the weights of boxes, heaviest first; overlapping ones are omitted. */
  function write(boxes) {
    const taken = [];
    for (const [x1, y1, , , weight] of boxes) {
      const above = y1 * frame.clientHeight > LABEL.height;
      const [x, y] = [x1 * frame.clientWidth, y1 * frame.clientHeight - (above ? LABEL.height : 0)];
      if (taken.some((other) => Math.abs(other.x - x) < LABEL.width && Math.abs(other.y - y) < LABEL.height)) continue;
      taken.push({ x, y });
      const label = element("span", { class: above ? "above" : null }, percent(weight));
      label.style.left = `${100 * x1}%`;
      label.style.top = `${100 * y1}%`;
      labels.append(label);
    }
  }
  return { frame, light };
}
