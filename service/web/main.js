// The page: what happens when somebody types, chooses and asks. Each part of it is a module of its own.

import { followFilter, showAnswers } from "./answers.js";
import { Refusal, answersTo, requestFor, servedModels } from "./api.js";
import { byId } from "./elements.js";
import { askForKey, keyIsGood, openKeyField } from "./key.js";
import { openLive, startLive, stopLive } from "./live.js";
import { answerQuestions, chosenStudent, chosenTeacher, followChoices, offer, offered, textsInRow } from "./models.js";
import { LineProblem, countOf, rowsOf } from "./texts.js";

let asking = false;

/** Which models are there? `byHand`: the reader asked for it, so the focus may move. */
async function findModels(byHand) {
  try {
    offer(await servedModels());
  } catch (refusal) {
    report(refusal, byHand);
    if (refusal.status !== 401) {
      startLive(); // it tries again, and says when there are models
    }
    return;
  }
  keyIsGood();
  complain("");
  describeInput();
  startLive();
}

async function ask(event) {
  event.preventDefault();
  if (asking) {
    return;
  }
  asking = true;
  byId("answers").setAttribute("aria-busy", "true");
  complain("");
  try {
    const rows = rowsOf(byId("texts").value, textsInRow());
    const [student, teacher] = [chosenStudent(), chosenTeacher()];
    if (student === null && teacher === null) {
      throw new LineProblem("No model is served yet.");
    }
    const answers = await answersTo(student, teacher, rows);
    keyIsGood();
    byId("status").textContent = showAnswers(rows, answers);
    showAsCommand(student, teacher, rows);
  } catch (problem) {
    report(problem, true);
  } finally {
    asking = false;
    byId("answers").setAttribute("aria-busy", "false");
  }
}

function report(problem, byHand) {
  byId("status").textContent = "";
  if (problem instanceof LineProblem) {
    complain(problem.message);
    byId("texts").focus();
  } else if (!(problem instanceof Refusal)) {
    complain("The page has a fault; the console of the browser says more.");
    throw problem;
  } else if (problem.status === 401) {
    askForKey(byHand ? `${problem.title}: ${problem.message}` : "This service wants an API key.", byHand);
    stopLive("Needs an API key.");
  } else {
    complain(problem.message ? `${problem.title}: ${problem.message}` : problem.title);
  }
}

/** Say what is wrong beside the texts; nothing, where nothing is. */
function complain(what) {
  byId("problem").textContent = what;
  byId("texts").setAttribute("aria-invalid", String(what !== ""));
}

function describeInput() {
  const pairs = textsInRow() === 2;
  const what = answerQuestions() ? "question with its context" : "pair";
  byId("texts-hint").textContent = pairs
    ? `One ${what} a line, with \u201C ||| \u201D or a tab between its two texts. Ctrl + Enter asks.`
    : "One text a line; blank lines are left out. Ctrl + Enter asks.";
  const alone = answerQuestions() ? "Answer" : "Classify";
  byId("ask-button").textContent = chosenStudent() && chosenTeacher() ? "Compare" : alone;
  count();
}

function count() {
  const rows = countOf(byId("texts").value);
  const what = textsInRow() === 2 ? "pair" : "text";
  byId("count").textContent = `${rows} ${rows === 1 ? what : `${what}s`}`;
}

/** The same request for a terminal. The key is a variable there, so that it is not copied along. */
function showAsCommand(student, teacher, rows) {
  const { path, body } = requestFor(student, teacher, rows);
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const url = new URL(path, document.baseURI).href;
  byId("command").textContent =
    `curl ${url} \\\n  -H 'Content-Type: application/json' -H "Authorization: Bearer $KEY" \\\n  -d '${quoted}'`;
  byId("as-command").hidden = false;
}

openKeyField(() => findModels(true));
openLive((models) => models.join() === offered().join() || findModels(false));
followChoices(describeInput);
followFilter();
byId("ask").addEventListener("submit", ask);
byId("texts").addEventListener("input", count);
byId("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
});
findModels(false);
