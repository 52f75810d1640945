// A line of the last values, without axes: its shape is for the eye, the number beside it is for everyone.

import { shape } from "./elements.js";

const WIDTH = 120;
const HEIGHT = 28;

/** Values from old to new, at most `most`; null leaves a gap. */
export function sparkline(values, most) {
  const top = Math.max(...values.filter((value) => value !== null), Number.MIN_VALUE);
  const step = WIDTH / (most - 1);
  const start = WIDTH - step * (values.length - 1);
  const points = values.map((value, place) =>
    value === null ? null : [start + step * place, HEIGHT - 1 - (value / top) * (HEIGHT - 3)],
  );
  return shape(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "sparkline" },
    ...runsOf(points).flatMap(drawn),
  );
}

/** Points that stand beside each other, without the gaps. */
function runsOf(points) {
  const runs = [[]];
  for (const point of points) {
    if (point === null) {
      runs.push([]);
    } else {
      runs.at(-1).push(point);
    }
  }
  return runs.filter((run) => run.length > 0);
}

function drawn(run) {
  const line = run.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  const [first, last] = [run[0][0].toFixed(1), run.at(-1)[0].toFixed(1)];
  return [
    shape("polygon", { points: `${first},${HEIGHT} ${line} ${last},${HEIGHT}`, class: "area" }),
    shape("polyline", { points: run.length > 1 ? line : `${line} ${line}`, class: "line" }),
  ];
}
