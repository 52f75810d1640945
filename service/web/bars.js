// Bars: the scores of labels, and where the time of an answer went. Each has its number beside it in words.

import { element } from "./elements.js";

const SHOWN = 6; // labels of a text; the rest is counted
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

/** A share in words. */
export function share(value) {
  return percent.format(value);
}

/** Milliseconds in words. */
export function milliseconds(value) {
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}

/** The scores of one answer as bars; of a regression, whose scores are no shares, as numbers. */
export function scoreBars(answer, who) {
  const chosen = labelsOf(answer);
  const ranked = Object.entries(answer.scores);
  if (chosen === null) {
    return numbers(answer.scores);
  }
  const listed = ranked.length > SHOWN ? ranked.sort((one, other) => other[1] - one[1]).slice(0, SHOWN) : ranked;
  const rows = listed.map(([label, value]) => scoreBar(label, value, chosen.includes(label)));
  const rest = ranked.length - listed.length;
  return element(
    "ul",
    { class: `scores ${who}` },
    ...rows,
    rest ? element("li", { class: "rest" }, `and ${rest} more`) : null,
  );
}

/** Numbers by their names, as they are. */
export function numbers(named) {
  const listed = Object.entries(named).map(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, number.format(value)),
  ]);
  return element("dl", { class: "numbers" }, ...listed.flat());
}

/** The labels that an answer chose; null of a regression, which chooses none. */
export function labelsOf(answer) {
  return answer.labels ?? (answer.label === undefined ? null : [answer.label]);
}

function scoreBar(label, value, isChosen) {
  return element(
    "li",
    { class: isChosen ? "chosen" : "other" },
    element("span", { class: "label" }, label),
    bar([["filled", value]]),
    element("span", { class: "value" }, share(value)),
  );
}

/** Tokenising, waiting, running and the rest of one answer, on a scale that both models share. */
export function timeBar(timing, scale) {
  const rest = Math.max(0, timing.total - timing.tokenize - timing.queue - timing.inference);
  const parts = [
    ["tokenize", timing.tokenize],
    ["queue", timing.queue],
    ["run", timing.inference],
    ["remainder", rest],
  ];
  return bar(parts.map(([kind, value]) => [kind, value / scale]));
}

/** Parts of a track, each a share of its length. For the eye only: whoever calls says the same in words. */
function bar(parts) {
  const filled = parts.map(([kind, length]) => {
    const part = element("span", { class: `part ${kind}` });
    part.style.width = `${(100 * length).toFixed(2)}%`;
    return part;
  });
  return element("span", { class: "track", "aria-hidden": "true" }, ...filled);
}
