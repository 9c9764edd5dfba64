// Keys: / focuses the search, arrows move between results (in the dialog, too), Escape goes back.
const $ = (id) => document.getElementById(id);
const typing = () => document.activeElement?.matches("input:not([type=radio]):not([type=file])");

/** The button to focus for an arrow key: the adjacent one, or the nearest one in the row above or below. */
function neighbour(buttons, key) {
  const here = buttons.indexOf(document.activeElement);
  if (here < 0) return buttons[0];
  if (key === "ArrowLeft") return buttons[here - 1];
  if (key === "ArrowRight") return buttons[here + 1];
  const places = buttons.map((button) => {
    const { left, width, top } = button.getBoundingClientRect();
    return { button, top, middle: left + width / 2 };
  });
  const { top, middle } = places[here];
  const down = key === "ArrowDown";
  const beyond = places.filter((place) => (down ? place.top > top + 5 : place.top < top - 5));
  const row = (down ? Math.min : Math.max)(...beyond.map((place) => place.top));
  const near = beyond.filter((place) => Math.abs(place.top - row) < 5);
  return near.sort((a, b) => Math.abs(a.middle - middle) - Math.abs(b.middle - middle))[0]?.button;
}

/**
 * Handle the keys.
 * @param {{buttons: function(): Element[], unpin: function(): boolean}} page - The buttons of the results, and a function
 *   that releases a pinned word and returns whether there was one.
 */
export function onKeys({ buttons, unpin }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if ($("why").open) {
      const step = { ArrowLeft: "before", ArrowRight: "after" }[event.key];
      if (step && !document.activeElement.matches("input") && !$(step).disabled) $(step).click();
    } else if (event.key === "/" && !typing()) {
      event.preventDefault();
      $("q").focus();
      $("q").select();
    } else if (event.key === "Escape") {
      if (!unpin() && !typing()) $("q").focus();
    } else if (event.key.startsWith("Arrow") && buttons().length && (!typing() || event.key === "ArrowDown")) {
      const next = neighbour(buttons(), event.key);
      if (!next) return;
      event.preventDefault();
      next.focus();
      next.scrollIntoView({ block: "nearest" });
    }
  });
}
