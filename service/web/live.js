// The live view: asks for the counters each second and shows what they did in between, while somebody looks.

import { traffic } from "./api.js";
import { byId, element } from "./elements.js";
import { MEASURES, measures } from "./rates.js";
import { sparkline } from "./sparkline.js";

const PERIOD_MS = 1000;
const RETRY_MS = 5000; // after no answer
const KEPT = 60;

const panels = new Map(); // by model
let before = null;
let timer = null;
let wanted = false; // there is somebody to ask
let paused = false;
let modelsChanged = () => {};

/** Let the button work. `changed` is called with the models that are served, when they are others than a moment ago. */
export function openLive(changed) {
  modelsChanged = changed;
  byId("pause").addEventListener("click", () => {
    paused = !paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    say(paused ? "Paused." : "");
    next(0);
  });
  document.addEventListener("visibilitychange", () => next(0));
}

/** Ask from now on. */
export function startLive() {
  wanted = true;
  next(0);
}

/** Ask no more, because of this. */
export function stopLive(why) {
  wanted = false;
  say(why);
  next(0);
}

function next(wait_ms) {
  clearTimeout(timer);
  timer = null;
  if (wanted && !paused && !document.hidden) {
    timer = setTimeout(look, wait_ms);
  } else {
    before = null; // what happens meanwhile is no rate of a moment
  }
}

async function look() {
  const mine = timer;
  const [now, refusal] = await traffic().then((found) => [found, null], (refused) => [null, refused]);
  if (timer !== mine) {
    return; // somebody paused it, or began anew
  }
  if (refusal?.status === 401 || refusal?.status === 403) {
    stopLive("Needs an API key.");
    return;
  }
  next(refusal ? RETRY_MS : PERIOD_MS);
  if (refusal) {
    say(`${refusal.title}: ${refusal.message}`);
    before = null;
  } else {
    say("");
    show(now);
  }
}

function show(now) {
  const models = now.data.map((reading) => reading.model);
  if (models.join() !== [...panels.keys()].join()) {
    rebuild(now.data);
    modelsChanged(models);
  }
  if (before !== null && now.seconds > before.seconds) {
    for (const [model, values] of measures(before, now)) {
      values.forEach((value, place) => draw(panels.get(model).tiles[place], value, MEASURES[place]));
    }
  }
  for (const reading of now.data) {
    panels.get(reading.model).alarms.textContent = alarmsOf(reading);
  }
  if (before === null || now.seconds > before.seconds) { // another worker may have answered out of turn
    before = now;
  }
}

function rebuild(readings) {
  const kept = new Map(panels);
  panels.clear();
  for (const { model } of readings) {
    panels.set(model, kept.get(model) ?? { tiles: MEASURES.map(tile), alarms: element("p", { class: "complaint" }) });
  }
  byId("traffic").replaceChildren(...readings.map(panel));
}

function panel({ model, role }, place) {
  const title = element(
    "h3",
    { id: `traffic-${place}` },
    `${role === "teacher" ? "Teacher" : "Student"} `,
    element("span", { class: "model-name" }, model),
  );
  const { tiles, alarms } = panels.get(model);
  const boxes = element("dl", {}, ...tiles.map((made) => made.box));
  return element("section", { class: `panel ${role}`, "aria-labelledby": `traffic-${place}` }, title, alarms, boxes);
}

function alarmsOf(reading) {
  const found = [
    reading.agreement_alarm ? "It agrees less with its teacher than was recorded." : null,
    reading.drift_alarm ? "The texts are unlike those that it was distilled for." : null,
  ];
  return found.filter(Boolean).join(" ");
}

function tile(measure) {
  const value = element("span", { class: "now" }, "–");
  const line = element("span", { class: "plot" });
  const box = element("div", { class: "tile" }, element("dt", {}, measure.name), element("dd", {}, value, line));
  box.hidden = measure.rare === true;
  return { box, value, line, history: [] };
}

function draw(made, value, measure) {
  made.history = [...made.history, value].slice(-KEPT);
  made.value.textContent = value === null ? "–" : measure.say(value);
  made.line.replaceChildren(sparkline(made.history, KEPT));
  made.box.hidden = made.box.hidden && value === null;
}

function say(what) {
  if (byId("live-said").textContent !== what) { // each change is read aloud
    byId("live-said").textContent = what;
  }
}
