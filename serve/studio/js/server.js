// Talking to the endpoint: questions, drawing with what can be seen on the way, and what goes wrong in its own words.

import { eventsOf } from "./events.js";
import { credentials } from "./key.js";
import { bodyOf, pathOf } from "./settings.js";

const PREVIEWS = 3;

/** The server said no: its message, the field it is about if any, and whether asking again may help. */
export class Refusal extends Error {
  constructor({ message, param = null }, status = 500) {
    super(message || `The server answered with status ${status}`);
    Object.assign(this, { param, status });
  }

  get again() {
    return this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** The server could not be heard. */
export class Unreachable extends Error {
  again = true;
}

/** GET a JSON object. */
export async function get(path, signal) {
  return (await heard(path, { headers: credentials(), signal })).json();
}

/**
 * Draw; yield {kind: "preview", picture, index, of, blob} on the way and {kind: "picture", picture, seed, blob} at the
 * end, one for each picture. Aborting the signal hangs up, upon which the server stops within a step.
 */
export async function* draw(settings, signal) {
  let answer;
  try {
    answer = await post(settings, { stream: true, partial_images: PREVIEWS }, signal);
  } catch (error) {
    // an endpoint that streams nothing still draws
    if (!(error instanceof Refusal && ["stream", "partial_images"].includes(error.param))) throw error;
    answer = await post(settings, {}, signal);
  }
  if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) {
    yield* pictures((await answer.json()).data, settings);
    return;
  }
  let left = settings.n;
  try {
    for await (const { event, data } of eventsOf(answer.body)) {
      if (data === "[DONE]") break;
      const told = JSON.parse(data);
      if (told.error || event === "error") throw new Refusal(told.error ?? told);
      if (!told.b64_json) continue;
      const kind = told.type.endsWith(".completed") ? "picture" : "preview";
      const picture = told.image_index ?? 0;
      const blob = blobOf(told.b64_json, told.output_format);
      const seed = told.seed ?? settings.seed + picture;
      left -= kind === "picture" ? 1 : 0;
      yield { kind, picture, seed, index: told.partial_image_index, of: PREVIEWS, blob };
    }
  } catch (error) {
    throw error instanceof TypeError ? brokenOff() : error;
  }
  if (left > 0) throw brokenOff();
}

function* pictures(data, settings) {
  for (const [picture, { b64_json, seed }] of data.entries()) {
    yield { kind: "picture", picture, seed: seed ?? settings.seed + picture, blob: blobOf(b64_json, "png") };
  }
}

function post(settings, extra, signal) {
  const [headers, body] = bodyOf(settings, extra);
  return heard(pathOf(settings), { method: "POST", headers: { ...headers, ...credentials() }, body, signal });
}

/** Fetch, and turn what is not an answer into a Refusal or Unreachable. */
async function heard(path, options) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The server cannot be reached. Your settings are still here.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refusal(said.error ?? {}, answer.status);
}

const brokenOff = () => new Unreachable("The connection broke off before the picture was done.");

function blobOf(base64, format = "png") {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: `image/${format}` });
}
