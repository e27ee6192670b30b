// The API key: asked for when the server wants one, kept until the tab closes.

import { at } from "./dom.js";

const PLACE = "studio-key";

/** Return the headers that carry the key. */
export function credentials() {
  const key = sessionStorage.getItem(PLACE);
  return key ? { authorization: `Bearer ${key}` } : {};
}

export const hasKey = () => sessionStorage.getItem(PLACE) !== null;

/** Ask for a key, saying why; resolve to whether there is a new one. Esc leaves the old one as it is. */
export function askForKey(why) {
  const dialog = at("key");
  const field = at("key-field");
  if (why) at("key-why").textContent = why;
  field.value = sessionStorage.getItem(PLACE) ?? "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  field.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "keep" && keep(field.value.trim())), {
      once: true,
    });
  });
}

function keep(key) {
  if (key) sessionStorage.setItem(PLACE, key);
  else sessionStorage.removeItem(PLACE);
  at("key-button").dataset.held = String(hasKey());
  return true;
}
