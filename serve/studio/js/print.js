// A finished picture on the page: its frame, its label as a museum would write it, and what can be done with it.

import { icon, make } from "./dom.js";

const urls = new Map();

/** Return the address of a print's picture; the same one until it is forgotten. */
export function addressOf(print) {
  if (!urls.has(print.id)) urls.set(print.id, URL.createObjectURL(print.blob));
  return urls.get(print.id);
}

export function forget(print) {
  URL.revokeObjectURL(urls.get(print.id));
  urls.delete(print.id);
}

/** The picture, as a button that opens it. */
export function framed(print, open) {
  const { prompt, size } = print.settings;
  const image = make("img", { src: addressOf(print), alt: prompt, loading: "lazy" });
  const [width, height] = (size || "1x1").split("x").map(Number);
  const pressed = { "aria-label": `Enlarge: ${prompt}`, onclick: () => open(print) };
  const button = make("button", { type: "button", class: "frame", ...pressed }, image);
  button.style.setProperty("--width", width);
  button.style.setProperty("--height", height);
  return button;
}

export function fileName({ settings, blob }) {
  const words = settings.prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return `${words.slice(0, 6).join("-").slice(0, 60) || "picture"}-${settings.seed}.${blob.type.split("/")[1]}`;
}

/** What can be done with a print, as a row of buttons; `deeds` are {reuse, startFrom, remove}, each of a print. */
export function deedsOf(print, deeds) {
  const download = { class: "quiet", href: addressOf(print), download: fileName(print), title: "Download" };
  const deed = (name, label, press) =>
    make("button", { type: "button", class: "quiet", title: label, onclick: press }, icon(name), label);
  return make(
    "div",
    { class: "deeds" },
    make("a", download, icon("download"), "Download"),
    deed("settings", "Use settings", () => deeds.reuse(print)),
    deed("start", "Start from this", () => deeds.startFrom(print)),
    deed("trash", "Delete", () => deeds.remove(print)),
  );
}

/** The label beside a picture: what was asked for. `seeds` are those of all pictures of the run. */
export function labelOf({ settings, model, seconds }, seeds = [settings.seed]) {
  const facts = {
    Style: settings.style,
    "Keep out": settings.negative,
    Seed: seeds.length > 1 ? `${seeds[0]} to ${seeds.at(-1)}` : seeds[0],
    Size: settings.size.replace("x", " × "),
    Steps: settings.steps,
    Guidance: settings.guidance,
    Sampler: settings.sampler,
    Adapters: settings.loras.map(({ name, scale }) => `${name} ${scale.toFixed(1)}`).join(", "),
    "Started from": settings.start && `${settings.start.name}, ${Math.round(settings.start.strength * 100)} % redrawn`,
    Model: model,
    Time: seconds && `${seconds.toFixed(1)} s`,
  };
  const told = Object.entries(facts).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const list = told.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]);
  return make("div", { class: "label" }, make("p", { class: "title" }, settings.prompt), make("dl", {}, ...list));
}
