// What to draw, apart from how the page shows it: the object that the form gives, and the request it becomes.

/**
 * @typedef {{name: string, scale: number}} Adapter
 * @typedef {{picture: Blob, name: string, strength: number}} Start
 * @typedef {{prompt: string, negative: string, style: string, size: string, n: number, steps: number,
 *   guidance: number, sampler: string, seed: number, loras: Adapter[], start: Start | null}} Settings
 */

export const GENERATIONS = "/v1/images/generations";
export const EDITS = "/v1/images/edits";
const SEEDS = 2 ** 32;

export const anySeed = () => Math.floor(Math.random() * SEEDS);

export const pathOf = (settings) => (settings.start ? EDITS : GENERATIONS);

/** Return the fields of the request, those left at nothing left out. */
export function fieldsOf(/** @type {Settings} */ settings) {
  return {
    prompt: settings.prompt,
    ...(settings.negative && { negative_prompt: settings.negative }),
    ...(settings.style && { style: settings.style }),
    ...(settings.n > 1 && { n: settings.n }),
    ...(settings.size && { size: settings.size }),
    num_inference_steps: settings.steps,
    guidance_scale: settings.guidance,
    ...(settings.sampler && { sampler: settings.sampler }),
    seed: settings.seed,
    ...(settings.loras.length && { lora: settings.loras }),
    ...(settings.start && { strength: settings.start.strength }),
  };
}

/** Return [headers, body] of the request: JSON, or a form where there is a picture to start from. */
export function bodyOf(/** @type {Settings} */ settings, extra = {}) {
  const fields = { ...fieldsOf(settings), ...extra };
  if (!settings.start) return [{ "content-type": "application/json" }, JSON.stringify(fields)];
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, text(value));
  form.append("image", settings.start.picture, settings.start.name);
  return [{}, form];
}

/** Return a value as a form's text: lists and objects as JSON. */
export const text = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

/** Return the settings of picture i of n: one picture, with its own seed. */
export const nth = (settings, i) => ({ ...settings, n: 1, seed: settings.seed + i });
