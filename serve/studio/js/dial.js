// A number on a slider, and beside it the same number to type.

import { at } from "./dom.js";

export class Dial {
  #range;
  #exact;

  constructor(id) {
    this.#range = at(id);
    this.#exact = at(`${id}-exact`);
    this.#range.addEventListener("input", () => (this.#exact.value = this.#range.value));
    this.#exact.addEventListener("input", () => (this.#range.value = this.#exact.value));
    this.#exact.addEventListener("change", () => (this.value = this.value));
  }

  get value() {
    return Number(this.#exact.value || this.#range.value);
  }

  set value(number) {
    const { min, max } = this.#exact;
    this.#exact.value = String(Math.min(Math.max(number, Number(min)), Number(max)));
    this.#range.value = this.#exact.value;
  }

  set most(number) {
    this.#range.max = this.#exact.max = String(number);
  }
}
