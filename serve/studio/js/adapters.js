// The adapters to draw with: a search field over however many there are, and the chosen ones with their weights. The
// field is a combobox with a listbox as the ARIA Authoring Practices describe it.

import { at, count, icon, iconButton, make } from "./dom.js";
import { tell } from "./notes.js";

const SHOWN = 40;
/** Weights go this far either way. */
const MOST = 2;
const STEP = 0.1;

export class Adapters {
  #field = at("lora");
  #list = at("lora-list");
  #names = [];
  #chosen = [];
  #active = -1;

  constructor() {
    this.#field.addEventListener("input", () => this.#open());
    this.#field.addEventListener("click", () => this.#open());
    this.#field.addEventListener("blur", () => this.#close());
    this.#field.addEventListener("keydown", (event) => this.#key(event));
    // before the field loses the focus, or the list would be gone
    this.#list.addEventListener("pointerdown", (event) => event.preventDefault());
    this.#list.addEventListener("click", (event) => this.#choose(event.target.closest("li")?.dataset.name));
  }

  /** The names on offer. */
  set names(names) {
    this.#names = names;
    this.#field.disabled = !names.length;
    this.#field.placeholder = names.length ? `Search ${count(names.length, "adapter")}` : "None registered yet";
  }

  /** @returns {import("./settings.js").Adapter[]} */
  get value() {
    return this.#chosen.map(({ name, scale }) => ({ name, scale }));
  }

  set value(adapters) {
    this.#chosen = adapters.map((adapter) => ({ ...adapter }));
    this.#show();
  }

  #matches() {
    const asked = this.#field.value.trim().toLowerCase();
    const taken = new Set(this.#chosen.map(({ name }) => name));
    const found = this.#names.filter((name) => name.toLowerCase().includes(asked) && !taken.has(name));
    // what begins with the words asked for comes first
    return found.sort((one, other) => other.toLowerCase().startsWith(asked) - one.toLowerCase().startsWith(asked));
  }

  #open() {
    const found = this.#matches();
    const options = found.slice(0, SHOWN).map((name, i) => option(name, i));
    const more = found.length > SHOWN ? `${found.length - SHOWN} more: type to narrow` : "None of that name";
    if (found.length > SHOWN || !found.length) options.push(make("li", { class: "more", role: "presentation" }, more));
    this.#list.replaceChildren(...options);
    this.#list.hidden = false;
    this.#field.setAttribute("aria-expanded", "true");
    this.#list.scrollIntoView({ block: "nearest" });
    this.#point(this.#field.value && found.length ? 0 : -1);
  }

  #close() {
    this.#list.hidden = true;
    this.#field.setAttribute("aria-expanded", "false");
    this.#point(-1);
  }

  #point(index) {
    const options = [...this.#list.querySelectorAll("[role=option]")];
    this.#active = options.length ? Math.min(index, options.length - 1) : -1;
    options.forEach((one, i) => one.setAttribute("aria-selected", String(i === this.#active)));
    const active = options[this.#active];
    if (active) {
      this.#field.setAttribute("aria-activedescendant", active.id);
      // scrollIntoView would move the page as well
      const below = active.offsetTop + active.offsetHeight - this.#list.clientHeight;
      this.#list.scrollTop = Math.min(Math.max(this.#list.scrollTop, below), active.offsetTop);
    } else this.#field.removeAttribute("aria-activedescendant");
  }

  #key(event) {
    const open = !this.#list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) this.#open();
      this.#point(Math.max(0, this.#active + (event.key === "ArrowDown" ? 1 : -1)));
    } else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (open && this.#active >= 0) this.#choose(this.#list.children[this.#active].dataset.name);
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      event.stopPropagation();
      this.#close();
    } else if (event.key === "Backspace" && !this.#field.value && this.#chosen.length) {
      this.#drop(this.#chosen.at(-1).name);
    }
  }

  #choose(name) {
    if (!name) return;
    this.#chosen.push({ name, scale: 1 });
    this.#field.value = "";
    this.#close();
    this.#show();
    tell(`Adapter ${name} chosen`);
  }

  #drop(name) {
    this.#chosen = this.#chosen.filter((adapter) => adapter.name !== name);
    this.#show();
    this.#field.focus();
    tell(`Adapter ${name} removed`);
  }

  #show() {
    at("loras").replaceChildren(...this.#chosen.map((adapter) => this.#row(adapter)));
  }

  #row(adapter) {
    const { name } = adapter;
    const weight = (event) => {
      adapter.scale = Number(event.target.value);
      shown.value = adapter.scale.toFixed(1);
    };
    const shown = make("output", {}, adapter.scale.toFixed(1));
    const range = { type: "range", min: -MOST, max: MOST, step: STEP, value: adapter.scale };
    const slider = make("input", { ...range, "aria-label": `Weight of ${name}`, oninput: weight });
    const remove = iconButton("close", `Remove ${name}`, () => this.#drop(name));
    return make("li", {}, make("span", { class: "name" }, name), slider, shown, remove);
  }
}

function option(name, i) {
  return make("li", { role: "option", id: `lora-${i}`, data: { name }, "aria-selected": "false" }, name, icon("check"));
}
