// One of several, as radio buttons that look like chips or like the shape they stand for. Arrow keys come with them.

import { make } from "./dom.js";

/** A row of choices in `box`; `choices` are {value, title, content?}. */
export class Tiles {
  #box;
  #name;

  constructor(box, name) {
    this.#box = box;
    this.#name = name;
  }

  /** Offer these; what is chosen stays so if it is among them, else the first is. */
  fill(choices) {
    const kept = this.value;
    this.#box.replaceChildren(...choices.map((choice) => this.#tile(choice)));
    this.value = choices.some(({ value }) => value === kept) ? kept : (choices[0]?.value ?? "");
  }

  get value() {
    return this.#box.querySelector("input:checked")?.value ?? "";
  }

  /** Choose; a value that is not on offer is put there, so that the server may say what it thinks of it. */
  set value(value) {
    const inputs = [...this.#box.querySelectorAll("input")];
    let chosen = inputs.find((input) => input.value === value);
    if (!chosen && value !== "") {
      this.#box.append(this.#tile({ value, title: value }));
      chosen = this.#box.lastElementChild.querySelector("input");
    }
    if (chosen) chosen.checked = true;
    else if (inputs.length) inputs[0].checked = true;
  }

  #tile({ value, title, content, hint }) {
    const input = make("input", { type: "radio", name: this.#name, value, class: "unseen" });
    return make("label", { class: "tile", title: hint }, input, content ?? "", make("span", {}, title));
  }
}

/** A rectangle of the shape of a size "WIDTHxHEIGHT", drawn into a square. */
export function shapeOf(size) {
  const [width, height] = size.split("x").map(Number);
  const longest = Math.max(width, height);
  const [w, h] = [(18 * width) / longest, (18 * height) / longest];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  svg.setAttribute("viewBox", "0 0 22 22");
  svg.setAttribute("aria-hidden", "true");
  const places = { x: 11 - w / 2, y: 11 - h / 2, width: w, height: h, rx: 1.5 };
  for (const [name, value] of Object.entries(places)) rect.setAttribute(name, value.toFixed(1));
  svg.append(rect);
  return svg;
}
