// Where pictures hang: the latest run large on the stage, or its plates while it runs; all earlier prints below.

import { curlOf } from "./curl.js";
import { at, count, icon, make } from "./dom.js";
import { hasKey } from "./key.js";
import { tell } from "./notes.js";
import { noise, Plate } from "./plate.js";
import { deedsOf, framed, labelOf } from "./print.js";

const EXAMPLES = [
  "a red apple, 3d render style",
  "a tiger face, flat vector style",
  "a doughnut, 3d render style",
  "a carrot, soft cartoon style",
];

export class Wall {
  #stage = at("stage");
  #deeds;

  /** `deeds` are {open, reuse, startFrom, remove}, of a print, and {propose}, of a prompt. */
  constructor(deeds) {
    this.#deeds = deeds;
  }

  /** Hang the prints, newest first. */
  hang(prints, trouble) {
    const run = prints.filter((print) => print.run === prints[0]?.run);
    run.sort((one, other) => one.settings.seed - other.settings.seed);
    this.#stage.setAttribute("aria-busy", "false");
    this.#stage.replaceChildren(...(run.length ? this.#latest(run) : this.#empty()));
    const earlier = prints.filter((print) => !run.includes(print));
    at("gallery").hidden = !earlier.length;
    at("gallery-note").textContent = trouble
      ? `Until this page closes: pictures cannot be kept here (${trouble}).`
      : `${count(prints.length, "picture")}, kept in this browser only`;
    at("prints").replaceChildren(...earlier.map((print) => this.#small(print)));
  }

  /** Set up the plates of a run and return them. */
  begin(settings) {
    const plates = Array.from({ length: settings.n }, () => new Plate(settings.size, settings.prompt));
    const frames = plates.map(({ element }) => element);
    const grid = make("div", { class: settings.n > 1 ? "plates several" : "plates" }, ...frames);
    const clock = make("p", { class: "clock" }, "Waiting for the first steps");
    const label = make("div", { class: "label" }, make("p", { class: "title" }, settings.prompt), clock);
    // what goes must not take the focus along
    if (this.#stage.contains(document.activeElement)) at("generate").focus();
    this.#stage.setAttribute("aria-busy", "true");
    this.#stage.replaceChildren(grid, make("div", { class: "aside" }, label));
    return { plates, clock };
  }

  #latest(run) {
    const plates = run.map((print) => {
      const caption = make("figcaption", {}, deedsOf(print, this.#deeds));
      return make("figure", { class: "plate" }, framed(print, this.#deeds.open), caption);
    });
    const seeds = run.map((print) => print.settings.seed);
    const whole = { ...run[0].settings, n: run.length };
    const line = curl(curlOf(whole, location.origin, hasKey()));
    const aside = make("div", { class: "aside" }, labelOf(run[0], seeds), line);
    return [make("div", { class: run.length > 1 ? "plates several" : "plates" }, ...plates), aside];
  }

  #empty() {
    const frame = make("div", { class: "frame bare" }, noise());
    const ideas = EXAMPLES.map((prompt) => {
      const press = () => this.#deeds.propose(prompt);
      return make("li", {}, make("button", { type: "button", class: "idea", onclick: press }, prompt));
    });
    const words = make(
      "div",
      { class: "aside" },
      make("h2", {}, "Every picture begins as noise"),
      make("p", {}, "Say what it shall become, or begin with one of these."),
      make("ul", { class: "ideas" }, ...ideas),
    );
    return [make("div", { class: "plates" }, make("figure", { class: "plate" }, frame)), words];
  }

  #small(print) {
    const caption = make("figcaption", {}, print.settings.prompt);
    return make("li", {}, make("figure", {}, framed(print, this.#deeds.open), caption));
  }
}

/** The command line of a run, folded, with a button that copies it. */
function curl(command) {
  const shown = make("pre", { tabindex: 0, "aria-label": "The curl line" }, make("code", {}, command));
  const press = () => copied(shown, copy);
  const copy = make("button", { type: "button", class: "text copy", onclick: press }, icon("copy"), "Copy");
  return make("div", { class: "curl" }, make("details", {}, make("summary", {}, "As a curl line"), shown), copy);
}

async function copied(shown, button) {
  try {
    await navigator.clipboard.writeText(shown.textContent);
  } catch {
    // no clipboard without a secure context or the leave to use it: mark the text, for the keys that copy
    shown.closest("details").open = true;
    getSelection().selectAllChildren(shown);
    return tell("The line is marked: copy it with Ctrl C");
  }
  button.replaceChildren(icon("check"), "Copied");
  tell("Copied");
  setTimeout(() => button.replaceChildren(icon("copy"), "Copy"), 2000);
}
