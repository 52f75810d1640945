// Which models are asked: a student, and a teacher that says the same of the same texts.

import { byId, element } from "./elements.js";

export const ANSWERING = "question-answering";

let served = [];

/** Fill both lists with these models, as `GET /v1/models` gives them; what was chosen before stays if it is there. */
export function offer(models) {
  served = models.map((model) => ({ ...model, id: `${model.name}@${model.version}` }));
  const students = served.filter((model) => model.role === "student" && saysSomething(model));
  const usual = students.find((model) => model.default) ?? students[0];
  fill(byId("student"), students, students.length ? null : "none is served", usual);
  offerTeachers();
}

/** The models that are offered, in the order in which the service names them. */
export function offered() {
  return served.map((model) => model.id);
}

/** Follow the choice of the student; `changed` is called after each choice. */
export function followChoices(changed) {
  byId("student").addEventListener("change", () => {
    offerTeachers();
    changed();
  });
  byId("teacher").addEventListener("change", changed);
}

/** The student that is asked, or null. */
export function chosenStudent() {
  return served.find((model) => model.id === byId("student").value) ?? null;
}

/** The teacher that is asked, or null. */
export function chosenTeacher() {
  return served.find((model) => model.id === byId("teacher").value) ?? null;
}

/** Texts in a row of the models that were chosen: 2 where they read pairs. */
export function textsInRow() {
  return (chosenStudent() ?? chosenTeacher())?.texts ?? 1;
}

function offerTeachers() {
  const student = chosenStudent();
  const others = served.filter((model) => model.role === "teacher" && saysSomething(model));
  const teachers = others.filter((model) => student === null || alike(student, model));
  const own = teachers.find((model) => student && [model.id, model.name].includes(student.teacher)) ?? teachers[0];
  const nobody = student ? (teachers.length ? "none: the student alone" : "none is served") : null;
  fill(byId("teacher"), teachers, nobody, own);
  byId("no-teacher").hidden = student === null || teachers.length > 0;
  byId("no-teacher-of").textContent = student?.name ?? "";
}

/** Do the models that were chosen answer questions? */
export function answerQuestions() {
  return (chosenStudent() ?? chosenTeacher())?.task === ANSWERING;
}

/** Does it say something of a text? A vector is nothing to look at. */
function saysSomething(model) {
  return model.task !== "embedding";
}

/** Do both say the same of the same texts? */
function alike(one, other) {
  const same = one.labels.length === other.labels.length && one.labels.every((label) => other.labels.includes(label));
  return same && one.task === other.task && one.texts === other.texts;
}

function fill(list, models, nobody, usual) {
  const before = list.value;
  const options = models.map((model) => element("option", { value: model.id }, model.id));
  if (nobody !== null) {
    options.push(element("option", { value: "" }, nobody));
  }
  list.replaceChildren(...options);
  list.value = models.some((model) => model.id === before) ? before : (usual?.id ?? "");
}
