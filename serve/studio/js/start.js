// A picture to start from instead of noise: dropped, chosen or pasted, and how much of it is drawn anew.

import { Dial } from "./dial.js";
import { at } from "./dom.js";
import { tell } from "./notes.js";

const KINDS = ["image/png", "image/jpeg", "image/webp"];

export class StartPicture {
  #file = null;
  #strength = new Dial("strength");
  #complain;

  /** `complain` shows what is wrong with a file. */
  constructor(complain) {
    this.#complain = complain;
    const drop = at("drop");
    at("start").addEventListener("change", (event) => this.#take(event.target.files[0]));
    at("start-remove").addEventListener("click", () => (this.clear(), at("start").focus()));
    const over = (on) => (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      drop.classList.toggle("over", on);
    };
    // the whole page takes a picture, so that one dropped beside the field does not replace the page
    addEventListener("dragover", over(true));
    addEventListener("dragleave", over(false));
    addEventListener("drop", (event) => {
      over(false)(event);
      this.#take(event.dataTransfer.files[0]);
    });
    addEventListener("paste", (event) => {
      this.#take([...event.clipboardData.files].find(({ type }) => KINDS.includes(type)));
    });
  }

  /** @returns {import("./settings.js").Start | null} */
  get value() {
    return this.#file && { picture: this.#file, name: this.#file.name, strength: this.#strength.value };
  }

  set value(start) {
    if (!start) return this.clear();
    this.#hold(new File([start.picture], start.name, { type: start.picture.type }));
    this.#strength.value = start.strength;
  }

  clear() {
    URL.revokeObjectURL(at("start-picture").src);
    this.#file = null;
    at("start").value = "";
    at("start-picture").removeAttribute("src");
    at("started").hidden = true;
    at("drop").hidden = false;
  }

  #take(file) {
    if (!file) return;
    if (!KINDS.includes(file.type)) {
      return this.#complain(`${file.name} is ${file.type || "no picture"}: choose a PNG, JPEG or WebP file`);
    }
    this.#complain("");
    this.#hold(file);
    at("settings").open = true;
    tell(`Starting from ${file.name}`);
  }

  #hold(file) {
    this.clear();
    this.#file = file;
    at("start-picture").src = URL.createObjectURL(file);
    at("started").hidden = false;
    at("drop").hidden = true;
  }
}
