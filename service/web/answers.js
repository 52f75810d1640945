// What was answered: agreement and times of all texts together, then each text with both models' scores beside it.

import { labelsOf, milliseconds, numbers, scoreBars, share, timeBar } from "./bars.js";
import { byId, element } from "./elements.js";
import { countOf, markedText } from "./entities.js";
import { spoken } from "./texts.js";

const LONG = 240; // characters of a text that are shown before it is folded
const NAMES = { student: "Student", teacher: "Teacher" };
const STAGES = [
  ["tokenize", "tokenise"],
  ["queue", "queue"],
  ["inference", "run"],
];

/** Show the answers to these rows. Returns one sentence that says the same. */
export function showAnswers(rows, answers) {
  const whose = Object.keys(NAMES).filter((who) => answers[who] !== null);
  byId("nothing-yet").hidden = true;
  byId("summary").replaceChildren(...[agreementFigure(answers.agreement), timesFigure(whose, answers)].filter(Boolean));
  byId("rows").replaceChildren(table(rows, whose, answers));
  byId("filter").hidden = !answers.data?.some((beside) => beside.agree === false);
  byId("only-different").checked = false;
  filterRows();
  return sentence(rows.length, answers);
}

/** Let the box hide the texts on which both agree. */
export function followFilter() {
  byId("only-different").addEventListener("change", filterRows);
}

function filterRows() {
  byId("rows").classList.toggle("only-different", byId("only-different").checked);
}

function sentence(count, answers) {
  const said = `${count} ${count === 1 ? "text" : "texts"} answered.`;
  const { agreement } = answers;
  return agreement ? `${said} Student and teacher agree on ${agreement.agreed} of ${agreement.rows}.` : said;
}

function agreementFigure(agreement) {
  if (!agreement) {
    return null;
  }
  return element(
    "section",
    { class: "figure", "aria-labelledby": "agreement-title" },
    element("h3", { id: "agreement-title" }, "Agreement"),
    element("p", { class: "big", id: "agreement" }, share(agreement.share)),
    element("p", { class: "small" }, `the same answer on ${agreement.agreed} of ${agreement.rows}`),
  );
}

function timesFigure(whose, answers) {
  const scale = Math.max(...whose.map((who) => answers[who].timing_ms.total));
  const heads = STAGES.map(([stage, name]) =>
    element("th", { scope: "col" }, element("span", { class: `swatch ${stage}`, "aria-hidden": "true" }), name),
  );
  const head = element(
    "tr",
    {},
    element("th", { scope: "col" }, "model"),
    element("td", { class: "bar" }),
    ...heads,
    element("th", { scope: "col" }, "total"),
  );
  const lines = whose.map((who) => timesLine(who, answers[who], scale));
  return element(
    "section",
    { class: "figure times", "aria-labelledby": "times-title" },
    element("h3", { id: "times-title" }, "Time of the whole request"),
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines)),
    whose.length === 2 ? element("p", { class: "small" }, faster(answers)) : null,
  );
}

function timesLine(who, answer, scale) {
  const cells = STAGES.map(([stage]) => element("td", {}, milliseconds(answer.timing_ms[stage])));
  return element(
    "tr",
    { class: who },
    element("th", { scope: "row" }, NAMES[who]),
    element("td", { class: "bar" }, timeBar(answer.timing_ms, scale)),
    ...cells,
    element("td", { class: "total" }, milliseconds(answer.timing_ms.total)),
  );
}

function faster({ student, teacher }) {
  const ratio = teacher.timing_ms.total / student.timing_ms.total;
  const [first, times] = ratio >= 1 ? ["student", ratio] : ["teacher", 1 / ratio];
  return `The ${first} was ${times.toFixed(times < 10 ? 1 : 0)} times as fast.`;
}

// The roles are written out because a narrow screen lays the table out as blocks, which some browsers then no longer
// tell to screen readers as a table.
function table(rows, whose, answers) {
  const heads = [["Text"], ...whose.map((who) => [`${NAMES[who]} `, modelName(answers[who].model)])];
  if (answers.data) {
    heads.push([answers.agreement ? "Agreement" : "Difference"]);
  }
  const head = heads.map((said) => element("th", { role: "columnheader", scope: "col" }, ...said));
  const body = rows.map((row, place) => tableRow(row, place, whose, answers));
  return element(
    "table",
    { role: "table", class: answers.data ? "answers both" : "answers", "aria-labelledby": "answers-title" },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...head)),
    element("tbody", { role: "rowgroup" }, ...body),
  );
}

function modelName(model) {
  return element("span", { class: "model-name" }, model);
}

function tableRow(row, place, whose, answers) {
  const beside = answers.data?.[place];
  const cells = whose.map((who) => {
    const said = answerCell(answers[who].data[place], who, row);
    return element("td", { role: "cell", class: who, "data-who": NAMES[who] }, ...said);
  });
  if (beside) {
    const said = beside.difference ? numbers(beside.difference) : mark(beside.agree);
    cells.push(element("td", { role: "cell", class: "verdict" }, said));
  }
  return element(
    "tr",
    { role: "row", class: beside?.agree ? "same" : null },
    element("th", { role: "rowheader", scope: "row" }, ...spoken(row).map(textOf)),
    ...cells,
  );
}

function answerCell(answer, who, row) {
  if (answer.entities) {
    return [element("p", { class: "said" }, countOf(answer.entities)), markedText(row, answer.entities)];
  }
  if (answer.answers) {
    const found = answer.answers.map((each) => ({ ...each, text: each.answer, label: "answer" }));
    return [element("p", { class: "said" }, found[0]?.text || "no answer"), markedText(row.text_pair, found)];
  }
  const labels = labelsOf(answer);
  const said = labels === null ? null : element("p", { class: "said" }, labels.join(", ") || "no label");
  return [said, scoreBars(answer, who)].filter(Boolean);
}

function textOf(text) {
  if (text.length <= LONG) {
    return element("p", { class: "text" }, text);
  }
  const short = element("summary", {}, `${text.slice(0, LONG)}…`);
  return element("details", { class: "text" }, short, element("p", {}, text));
}

function mark(same) {
  const sign = element("span", { "aria-hidden": "true" }, same ? "✓ " : "≠ ");
  return element("span", { class: same ? "mark agrees" : "mark differs" }, sign, same ? "agree" : "differ");
}
