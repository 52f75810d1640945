// A text with what a model has found in it: each entity marked, its label and how sure the model is beside it.

import { share } from "./bars.js";
import { element } from "./elements.js";

/** The text, its entities marked; places count code points, and a string of ours counts halves of some. */
export function markedText(text, entities) {
  const characters = [...text];
  const parts = [];
  let done = 0;
  for (const entity of entities) {
    parts.push(characters.slice(done, entity.start).join(""), marked(entity));
    done = entity.end;
  }
  parts.push(characters.slice(done).join(""));
  return element("p", { class: "marked" }, ...parts);
}

/** How many there are, in words. */
export function countOf(entities) {
  return `${entities.length || "no"} ${entities.length === 1 ? "entity" : "entities"}`;
}

function marked({ label, score, text }) {
  const kind = element("span", { class: "kind" }, ` ${label} ${share(score)}`);
  return element("mark", { class: "entity" }, text, kind);
}
