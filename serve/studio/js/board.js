// The state of the endpoint, asked for gently: seldom while only its lamp shows, oftener while it is open, never while
// the page is hidden.

import { at, count, make } from "./dom.js";
import { get } from "./server.js";

const OPEN_MS = 2000;
const CLOSED_MS = 8000;
const MOST_MS = 60_000;

export class Board {
  #panel = at("board");
  #timer = 0;
  #failures = 0;

  #moved;

  /** `moved` is told the version that is served, each time it is heard of. */
  constructor(moved) {
    this.#moved = moved;
    this.#panel.addEventListener("toggle", () => this.#ask());
    document.addEventListener("visibilitychange", () => this.#ask());
    this.#ask();
  }

  async #ask() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    try {
      this.#show(await get("/status"));
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      this.#fail(error);
    }
    const open = this.#panel.matches(":popover-open");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), Math.min((open ? OPEN_MS : CLOSED_MS) * 2 ** this.#failures, MOST_MS));
  }

  #show({ model, version, replicas = [], canary = null }) {
    const waiting = replicas.reduce((sum, { queue = 0 }) => sum + queue, 0);
    at("lamp").dataset.state = replicas.length ? "up" : "idle";
    at("board-brief").textContent = replicas.length
      ? count(replicas.length, "replica") + (waiting ? `, ${waiting} waiting` : "")
      : "Asleep";
    const body = replicas.length
      ? replicas.map(card)
      : [make("p", {}, "No replica runs. The first request wakes one, which takes a while.")];
    const served = make("p", { class: "served" }, model ?? "", version ? make("span", {}, `version ${version}`) : null);
    const trial = canary && make("p", { class: "canary" }, `On trial: ${told(canary)}`);
    at("board-body").replaceChildren(served, ...(trial ? [trial] : []), ...body);
    if (version) this.#moved(version);
  }

  #fail(error) {
    at("lamp").dataset.state = "down";
    at("board-brief").textContent = error.status === 401 ? "Key wanted" : "No status";
    at("board-body").replaceChildren(make("p", {}, error.message));
  }
}

function card(replica) {
  const { name, queue = 0, rows = 0, resident = [], version, batch_fill: fill } = replica;
  const { row_steps_left: left = 0, row_steps_per_s: rate = 0 } = replica;
  const facts = {
    Drawing: count(rows, "picture"),
    Waiting: count(queue, "request"),
    "Work left": rate ? `${Math.round(left)} steps, ${(left / rate).toFixed(1)} s` : `${Math.round(left)} steps`,
    Speed: rate ? `${rate.toFixed(1)} steps/s` : "not measured yet",
    Version: version,
  };
  const list = Object.entries(facts)
    .filter(([, value]) => value !== undefined && value !== null)
    .flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, String(value))]);
  const held = resident.map((one) => make("li", {}, told(one)));
  const adapters = held.length
    ? make("ul", { class: "held", "aria-label": "Resident adapters" }, ...held)
    : make("p", { class: "hint" }, "No adapter resident");
  const title = make("h3", {}, name);
  return make("article", { class: "replica" }, title, make("dl", {}, ...list), full(fill), adapters);
}

/** How full the batches were of late, 0 to 1. */
function full(fill) {
  if (fill === undefined || fill === null) return null;
  const meter = make("meter", { min: 0, max: 1, value: fill, "aria-label": "Batch fill" });
  return make("p", { class: "fill" }, "Batch ", meter, ` ${Math.round(fill * 100)} %`);
}

/** Return a flat object as words. */
function told(thing) {
  if (typeof thing !== "object") return String(thing);
  return Object.entries(thing)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
}
