// What the page tells in passing: to everyone as a note at the foot, or to screen readers alone.

import { at, make } from "./dom.js";

const SHOWN_MS = 8000;

/** Tell screen readers. */
export function tell(text) {
  at("told").textContent = text;
}

/** Show a note for a while, with something to do about it if `action` is {label, press}. */
export function note(text, action) {
  const leave = () => shown.remove();
  const shown = make("div", { class: "note", role: "status" }, make("p", {}, text));
  if (action) {
    const press = () => (leave(), action.press());
    shown.append(make("button", { type: "button", class: "text", onclick: press }, action.label));
  }
  let timer = setTimeout(leave, SHOWN_MS);
  const hold = () => clearTimeout(timer);
  const release = () => (timer = setTimeout(leave, SHOWN_MS));
  for (const event of ["pointerenter", "focusin"]) shown.addEventListener(event, hold);
  for (const event of ["pointerleave", "focusout"]) shown.addEventListener(event, release);
  at("notes").replaceChildren(shown);
}
