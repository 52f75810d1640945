// From what was typed to the input of a request: one text a line, or one pair a line.

const BETWEEN = /\t| \|\|\| /;

/** Each line that is not blank, as a text or a pair. Throws a LineProblem that names the line. */
export function rowsOf(typed, textsInRow) {
  const lines = typed.split(/\r?\n/).map((line, index) => ({ line: line.trim(), number: index + 1 }));
  const rows = lines.filter(({ line }) => line !== "").map((line) => (textsInRow === 2 ? pairOf(line) : line.line));
  if (rows.length === 0) {
    throw new LineProblem(textsInRow === 2 ? "Type at least one pair." : "Type at least one text.");
  }
  return rows;
}

/** What was typed is not what the model reads. */
export class LineProblem extends Error {}

/** How many rows there are, whatever they are worth. */
export function countOf(typed) {
  return typed.split("\n").filter((line) => line.trim() !== "").length;
}

/** A row in words: a pair as both its texts. */
export function spoken(row) {
  return typeof row === "string" ? [row] : [row.text, row.text_pair];
}

/** The same row as a question, for models that answer them. */
export function asQuestion({ text, text_pair }) {
  return { question: text, context: text_pair };
}

function pairOf({ line, number }) {
  const parts = line.split(BETWEEN);
  if (parts.length !== 2) {
    throw new LineProblem(`Line ${number}: write both texts of a pair in one line, with " ||| " or a tab between.`);
  }
  return { text: parts[0].trim(), text_pair: parts[1].trim() };
}
