// The page: the form, the wall and the server brought together. One run at a time; the button that began it ends it.

import { Album } from "./album.js";
import { Board } from "./board.js";
import { Desk } from "./desk.js";
import { at, count, make } from "./dom.js";
import { askForKey, hasKey } from "./key.js";
import { note, tell } from "./notes.js";
import { forget } from "./print.js";
import { draw, get, Refusal } from "./server.js";
import { nth } from "./settings.js";
import { Viewer } from "./viewer.js";
import { Wall } from "./wall.js";

/** How old the list of adapters may be when somebody looks into it. */
const FRESH_MS = 10_000;

const album = await Album.open();
const desk = new Desk();
const deeds = { open: (print) => viewer.open(print), reuse, startFrom, remove, propose };
const wall = new Wall(deeds);
const viewer = new Viewer(() => album.prints, deeds);
let running = null;
let offered = null;
let askedAt = 0;

at("desk").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) generate();
});
at("generate").addEventListener("click", (event) => {
  if (!running) return;
  // or it submits: by then the run has ended and the button begins the next
  event.preventDefault();
  // the second half of a double press must not end what the first began
  if (event.detail < 2) running.abort();
});
addEventListener("keydown", (event) => {
  if (event.defaultPrevented || document.querySelector("dialog[open], :popover-open")) return;
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) {
    event.preventDefault();
    generate();
  }
});
at("key-button").addEventListener("click", async () => (await askForKey()) && open());
at("key-button").dataset.held = String(hasKey());

wall.hang(album.prints, album.trouble);
new Board((version) => offered && version !== offered.version && open());
at("lora").addEventListener("focus", () => performance.now() - askedAt > FRESH_MS && open());
await open();

/** Ask what is offered and fill the form. */
async function open() {
  try {
    askedAt = performance.now();
    offered = await get("/v1/offer");
    at("model").textContent = served();
    desk.offer(offered);
    const { styles } = await get("/v1/styles");
    desk.styles(styles ?? []);
    calm();
  } catch (error) {
    at("model").textContent = "";
    await fail(error, open);
  }
}

/** The model and version that is served, in words. */
function served() {
  return offered?.version ? `${offered.model}, version ${offered.version}` : (offered?.model ?? "");
}

async function generate() {
  const settings = desk.read();
  calm();
  if (!desk.check(settings)) return;
  running = new AbortController();
  button("Cancel", "Esc");
  const { plates, clock } = wall.begin(settings);
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const ticking = setInterval(() => (clock.textContent = `${seconds().toFixed(0)} s`), 1000);
  reveal(at("stage"));
  tell(`Drawing ${count(settings.n, "picture")}`);
  try {
    await develop(settings, plates, seconds);
    tell(`Done in ${seconds().toFixed(1)} seconds`);
  } catch (error) {
    if (error.name === "AbortError") note("Cancelled: the server has stopped drawing.");
    else await fail(error, generate);
  } finally {
    clearInterval(ticking);
    plates.forEach((plate) => plate.close());
    running = null;
    button("Generate", "Ctrl Enter");
    wall.hang(album.prints, album.trouble);
  }
}

/** Draw onto the plates; put what is finished into the album. */
async function develop(settings, plates, seconds) {
  const run = crypto.randomUUID?.() ?? String(Math.random());
  const at = Date.now();
  const model = served();
  for await (const { kind, picture, blob, seed, index, of } of draw(settings, running.signal)) {
    if (kind === "preview") plates[picture].preview(blob, index, of);
    else {
      const own = { ...nth(settings, picture), seed };
      await album.add({ id: `${run}-${picture}`, run, at, blob, model, seconds: seconds(), settings: own });
    }
  }
}

/** Say what went wrong where it belongs, and offer to try again where that may help. */
async function fail(error, retry) {
  if (error instanceof Refusal && error.status === 401) {
    if (await askForKey(error.message)) return setTimeout(retry);
    return complain(error.message, retry);
  }
  if (error instanceof Refusal && error.param && desk.say(error.param, error.message, true)) return;
  if (!(error.again || error instanceof Refusal)) console.error(error);
  complain(error.message, error.again ? retry : null);
}

function complain(message, retry) {
  const press = () => (calm(), retry());
  const again = retry && make("button", { type: "button", class: "text", onclick: press }, "Try again");
  at("trouble").replaceChildren(make("p", {}, message), again ?? "");
  at("trouble").hidden = false;
}

function calm() {
  at("trouble").hidden = true;
}

function button(label, keys) {
  at("generate").dataset.running = String(Boolean(running));
  // no submit button while it runs, so that Enter in a field does not cancel
  at("generate").type = running ? "button" : "submit";
  at("generate").querySelector("span").textContent = label;
  at("generate").querySelector("kbd").textContent = keys;
}

function reuse(print) {
  desk.write(print.settings);
  at("prompt").focus();
  reveal(at("desk"));
  tell("The settings of this picture are in the form");
}

function startFrom(print) {
  desk.startFrom(print.blob, `picture-${print.settings.seed}.png`);
}

async function remove(print) {
  await album.remove(print);
  wall.hang(album.prints, album.trouble);
  at("stage").querySelector("button").focus({ preventScroll: true });
  const undo = async () => {
    await album.add(print);
    wall.hang(album.prints, album.trouble);
  };
  note("Picture deleted.", { label: "Undo", press: undo });
  forget(print);
}

function propose(prompt) {
  at("prompt").value = prompt;
  at("prompt").dispatchEvent(new Event("input", { bubbles: true }));
  at("prompt").focus();
}

/** Bring an element into view where the page is one column. */
function reveal(element) {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  if (matchMedia("(max-width: 899px)").matches) element.scrollIntoView({ block: "start", behavior });
}
