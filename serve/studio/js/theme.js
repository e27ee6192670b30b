// Dark, light or as the system has it. A plain script in the head, since a module would run after the first paint.
"use strict";

(() => {
  const NEXT = { auto: "light", light: "dark", dark: "auto" };
  const SAYS = { auto: "as the system", light: "light", dark: "dark" };
  const root = document.documentElement;

  function wear(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById("theme-button");
    if (!button) return;
    button.setAttribute("aria-label", `Colours: ${SAYS[theme]}. Change to ${SAYS[NEXT[theme]]}`);
    button.title = `Colours: ${SAYS[theme]}`;
    button.querySelector("use").setAttribute("href", `icons/icons.svg#${theme}`);
  }

  const kept = localStorage.getItem("studio-theme");
  wear(kept in NEXT ? kept : "auto");
  document.addEventListener("DOMContentLoaded", () => {
    wear(root.dataset.theme);
    document.getElementById("theme-button").addEventListener("click", () => {
      wear(NEXT[root.dataset.theme]);
      localStorage.setItem("studio-theme", root.dataset.theme);
    });
  });
})();
