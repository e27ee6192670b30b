// The form: what the endpoint offers goes in, settings come out, and what is wrong with them stands at its field.

import { Adapters } from "./adapters.js";
import { Dial } from "./dial.js";
import { at, make } from "./dom.js";
import { anySeed } from "./settings.js";
import { StartPicture } from "./start.js";
import { shapeOf, Tiles } from "./tiles.js";

const COUNTS = ["1", "2", "3", "4"];
const SEED_MOST = 2 ** 53 - 1;
/** Fields that the endpoint calls by more names than the form. */
const ALIASES = { steps: "num_inference_steps", guidance: "guidance_scale", strength: "image", mask: "image" };

export class Desk {
  #styles = new Tiles(at("styles"), "style");
  #sizes = new Tiles(at("sizes"), "size");
  #counts = new Tiles(at("counts"), "n");
  #steps = new Dial("steps");
  #guidance = new Dial("guidance");
  #adapters = new Adapters();
  #start = new StartPicture((message) => this.say("image", message));
  #touched = false;

  constructor() {
    this.#counts.fill(COUNTS.map((value) => ({ value, title: value })));
    for (const id of ["prompt", "negative"]) at(id).addEventListener("input", () => fit(at(id)));
    at("dice").addEventListener("click", () => this.#seed(anySeed()));
    at("seed-clear").addEventListener("click", () => (this.#seed(""), at("seed").focus()));
    at("seed").addEventListener("input", () => this.#seed(at("seed").value));
    at("desk").addEventListener("input", (event) => {
      this.#touched = true;
      const param = event.target.closest("[data-param]")?.dataset.param;
      if (param) this.say(param, "");
    });
    at("settings").open = matchMedia("(min-width: 900px)").matches;
  }

  /** Offer what the endpoint does: {sizes, samplers, loras, steps: {default, max}}. Choices that are made stay. */
  offer({ sizes = [], samplers = [], loras = [], steps = {} }) {
    this.#sizes.fill(sizes.map((size) => ({ value: size, title: size.replace("x", " × "), content: shapeOf(size) })));
    const sampler = at("sampler");
    const chosen = sampler.value;
    sampler.replaceChildren(...samplers.map((name) => make("option", { value: name }, name)));
    if (samplers.includes(chosen)) sampler.value = chosen;
    this.#adapters.names = loras;
    if (steps.max) this.#steps.most = steps.max;
    if (steps.default && !this.#touched) this.#steps.value = steps.default;
  }

  /** Offer style presets, {name, title, example?}. */
  styles(presets) {
    at("styles").closest("fieldset").hidden = !presets.length;
    const chips = presets.map(({ name, title = capital(name), example }) => ({ value: name, title, hint: example }));
    this.#styles.fill([{ value: "", title: "None" }, ...chips]);
  }

  /** @returns {import("./settings.js").Settings} */
  read() {
    return {
      prompt: at("prompt").value.trim(),
      negative: at("negative").value.trim(),
      style: this.#styles.value,
      size: this.#sizes.value,
      n: Number(this.#counts.value),
      steps: this.#steps.value,
      guidance: this.#guidance.value,
      sampler: at("sampler").value,
      seed: at("seed").value === "" ? anySeed() : Number(at("seed").value),
      loras: this.#adapters.value,
      start: this.#start.value,
    };
  }

  /** Fill the form as it was for a picture. */
  write(/** @type {import("./settings.js").Settings} */ settings) {
    this.#touched = true;
    this.clear();
    at("prompt").value = settings.prompt;
    at("negative").value = settings.negative;
    this.#styles.value = settings.style;
    this.#sizes.value = settings.size;
    this.#counts.value = String(settings.n);
    this.#steps.value = settings.steps;
    this.#guidance.value = settings.guidance;
    const sampler = at("sampler");
    if (![...sampler.options].some(({ value }) => value === settings.sampler)) {
      sampler.append(make("option", { value: settings.sampler }, settings.sampler));
    }
    sampler.value = settings.sampler;
    this.#seed(settings.seed);
    this.#adapters.value = settings.loras;
    this.#start.value = settings.start;
    for (const id of ["prompt", "negative"]) fit(at(id));
  }

  startFrom(picture, name) {
    this.#start.value = { picture, name, strength: 0.6 };
    at("settings").open = true;
    at("strength").focus();
    at("started").scrollIntoView({ block: "nearest" });
  }

  /** Return whether the settings can be sent; what is wrong is said at its field. */
  check(settings) {
    this.clear();
    if (!settings.prompt) this.say("prompt", "Say what to draw.", true);
    else if (!Number.isSafeInteger(settings.seed) || settings.seed < 0) {
      this.say("seed", `A seed is a whole number from 0 to ${SEED_MOST}.`, true);
    } else return true;
    return false;
  }

  /** Say what is wrong with a field, "" for nothing, and go there if told to; return whether there is such a field. */
  say(param, message, go = false) {
    const name = ALIASES[param] ?? String(param ?? "").split(/[.[]/)[0];
    const field = at("desk").querySelector(`[data-param="${CSS.escape(name)}"]`);
    if (!field || (message && field.hidden)) return false;
    field.querySelector(".error").textContent = message;
    for (const control of field.querySelectorAll("[aria-describedby]")) {
      control.setAttribute("aria-invalid", String(Boolean(message)));
    }
    if (message && go) {
      const settings = field.closest("details");
      if (settings) settings.open = true;
      const control = field.querySelector("input:checked, textarea, select, input:not([type=radio])");
      control?.focus();
      field.scrollIntoView({ block: "nearest" });
    }
    return true;
  }

  clear() {
    for (const field of at("desk").querySelectorAll("[data-param]")) this.say(field.dataset.param, "");
  }

  #seed(seed) {
    at("seed").value = String(seed).replace(/\D/g, "");
    at("seed-clear").hidden = at("seed").value === "";
  }
}

/** Let a text field be as high as its text. */
function fit(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

const capital = (name) => name.charAt(0).toUpperCase() + name.slice(1);
