"use strict";
// Runs before the page is drawn, so that a chosen mode does not flash.
{
  const chosen = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
