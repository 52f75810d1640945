// What two readings of the counters say of the time between them: arithmetic alone.

import { milliseconds, share } from "./bars.js";

const small = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const rough = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });

const plain = (value) => (value < 10 ? small : whole).format(value);
const percent = (value) => rough.format(value);

/** What is shown of a model: `of` the growth of its counters, the seconds between, and its newest reading.
 * `rare`: there may never be anything to say, so it is shown from the first time on. */
export const MEASURES = [
  { name: "Texts a second", of: (grown, seconds) => grown.rows / seconds, say: plain },
  { name: "Texts in a batch", of: (grown) => ratio(grown.batched_rows, grown.batches), say: plain },
  { name: "Texts waiting", of: (_grown, _seconds, now) => now.queued_rows, say: plain },
  { name: "Time of a batch", of: (grown) => ratio(1000 * grown.inference_seconds, grown.batches), say: milliseconds },
  { name: "Padding", of: (grown) => ratio(grown.padding_tokens, grown.batched_tokens), say: percent },
  { name: "By the teacher", of: (grown) => ratio(grown.teacher_rows, grown.strategy_rows), say: percent, rare: true },
  { name: "Agreement", of: (_grown, _seconds, now) => agreement(now), say: share, rare: true },
];

/** The measures of each model between two answers of `GET /v1/live`, by model; null where nothing can be said. */
export function measures(before, now) {
  const seconds = now.seconds - before.seconds;
  const earlier = new Map(before.data.map((reading) => [reading.model, reading]));
  return new Map(
    now.data.map((reading) => {
      const grown = growth(earlier.get(reading.model) ?? reading, reading);
      return [reading.model, MEASURES.map((measure) => (seconds > 0 ? measure.of(grown, seconds, reading) : null))];
    }),
  );
}

/** How much each counter has grown; one that fell was begun anew. */
function growth(before, now) {
  const numbers = Object.entries(now).filter(([, value]) => typeof value === "number");
  return Object.fromEntries(
    numbers.map(([name, value]) => [name, value >= before[name] ? value - before[name] : value]),
  );
}

function ratio(part, all) {
  return all > 0 ? part / all : null;
}

/** Since the start: of one second there are too few. */
function agreement(now) {
  return ratio(now.agreed_rows, now.watched_rows);
}
