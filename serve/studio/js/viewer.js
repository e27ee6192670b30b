// A print at its largest, and its neighbours by the arrow keys. Esc closes it, as it does every dialog.

import { at, iconButton, make } from "./dom.js";
import { addressOf, deedsOf, labelOf } from "./print.js";

export class Viewer {
  #dialog = at("viewer");
  #prints = () => [];
  #shown = null;
  #deeds;

  /** `prints` gives all prints in order; every deed but the arrows closes the viewer. */
  constructor(prints, deeds) {
    this.#prints = prints;
    const closing = (deed) => (print) => (this.#dialog.close(), deed(print));
    this.#deeds = { reuse: closing(deeds.reuse), startFrom: closing(deeds.startFrom), remove: closing(deeds.remove) };
    this.#dialog.addEventListener("keydown", ({ key }) => {
      if (key === "ArrowLeft") this.#turn(-1);
      if (key === "ArrowRight") this.#turn(1);
    });
    // a press beside the sheet closes it
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  open(print) {
    this.#show(print);
    this.#dialog.showModal();
  }

  #turn(by) {
    const prints = this.#prints();
    const next = prints[prints.findIndex(({ id }) => id === this.#shown.id) + by];
    if (next) this.#show(next);
  }

  #show(print) {
    this.#shown = print;
    const prints = this.#prints();
    const place = prints.findIndex(({ id }) => id === print.id);
    const before = iconButton("left", "Newer picture", () => this.#turn(-1));
    const after = iconButton("right", "Older picture", () => this.#turn(1));
    before.disabled = place <= 0;
    after.disabled = place >= prints.length - 1;
    const held = document.activeElement?.getAttribute("aria-label");
    const told = make("span", { role: "status" }, `${place + 1} of ${prints.length}`);
    const bar = make("div", { class: "row" }, before, told, after);
    const close = iconButton("close", "Close", () => this.#dialog.close());
    close.autofocus = true;
    const picture = make("div", { class: "large" }, make("img", { src: addressOf(print), alt: print.settings.prompt }));
    const aside = make("div", { class: "aside" }, labelOf(print), deedsOf(print, this.#deeds), bar);
    this.#dialog.replaceChildren(make("div", { class: "spread" }, picture, aside, close));
    // whoever pages by a button stays on it; the first time the dialog is not open yet, and takes what has autofocus
    const again = held && this.#dialog.querySelector(`[aria-label="${CSS.escape(held)}"]:not(:disabled)`);
    (again || close).focus();
  }
}
