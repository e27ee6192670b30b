// One picture, from noise over previews to the finished print. A preview fades into the next; the last one is sharp.

import { make } from "./dom.js";

/** Of a side of the noise: a nano picture has as many latent positions. */
const CELLS = 16;

/** A frame in which a picture of a size "WIDTHxHEIGHT" comes into being. */
export class Plate {
  #image = make("div", { class: "layers" });
  #bar = make("progress", { max: 1, "aria-label": "How far it is" });
  element;

  constructor(size, alt) {
    const told = { role: "img", "aria-label": `In the making: ${alt}` };
    const frame = make("div", { class: "frame making", ...told }, noise(), this.#image);
    const [width, height] = (size || "1x1").split("x").map(Number);
    frame.style.setProperty("--width", width);
    frame.style.setProperty("--height", height);
    this.element = make("figure", { class: "plate" }, frame, make("figcaption", {}, this.#bar));
  }

  /** Lay a preview over the one before; index counts from 0. */
  preview(blob, index, of) {
    this.#lay(blob).style.setProperty("--blur", `${(1 - (index + 1) / (of + 1)) * 10}px`);
    this.#bar.value = (index + 1) / (of + 1);
  }

  #lay(blob) {
    const url = URL.createObjectURL(blob);
    const before = [...this.#image.children];
    const image = make("img", { src: url, alt: "" });
    image.addEventListener("animationend", () => before.forEach(forget));
    this.#image.append(image);
    return image;
  }

  /** Give back the memory of what was shown. */
  close() {
    [...this.#image.children].forEach(forget);
  }
}

function forget(image) {
  URL.revokeObjectURL(image.src);
  image.remove();
}

/** A canvas of soft noise, the place a picture starts from. */
export function noise() {
  const canvas = make("canvas", { class: "noise", width: CELLS, height: CELLS, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(CELLS, CELLS);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const level = 150 + 70 * (Math.random() + Math.random() - 1);
    for (let channel = 0; channel < 3; channel += 1) {
      pixels.data[i + channel] = level + 46 * (Math.random() - 0.5);
    }
    pixels.data[i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
