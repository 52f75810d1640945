// Asks the service. Every refusal becomes a Refusal; paths are relative, so that a prefix of a proxy stays in front.

import { currentKey } from "./key.js";
import { ANSWERING } from "./models.js";
import { asQuestion } from "./texts.js";

/** The service said no, or nothing at all (status 0). */
export class Refusal extends Error {
  constructor(status, title, detail) {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

/** The models that are served. */
export async function servedModels() {
  return (await ask("GET", "v1/models")).data;
}

/** What the models have done so far. */
export function traffic() {
  return ask("GET", "v1/live");
}

/** What a request for these models is: its path and its body. */
export function requestFor(student, teacher, rows) {
  const model = student ?? teacher;
  const asks = model.task === ANSWERING;
  const input = asks ? rows.map(asQuestion) : rows;
  if (student && teacher) {
    return { path: "v1/compare", body: { input, student: student.id, teacher: teacher.id } };
  }
  return { path: asks ? "v1/answer" : "v1/classify", body: { input, model: model.id } };
}

/** The answers of both models as {student, teacher, agreement, data}; of one model alone, null for the rest. */
export async function answersTo(student, teacher, rows) {
  const { path, body } = requestFor(student, teacher, rows);
  const answer = await ask("POST", path, body);
  if (student && teacher) {
    return answer;
  }
  return { student: student ? answer : null, teacher: teacher ? answer : null, agreement: null, data: null };
}

async function ask(method, path, body) {
  const headers = { Accept: "application/json" };
  if (currentKey()) {
    headers.Authorization = `Bearer ${currentKey()}`;
  }
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  const options = { method, headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store" };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal(0, "No answer", "The service cannot be reached. Does it still run?");
  }
  if (!response.ok) {
    throw await refusalOf(response);
  }
  return response.json();
}

async function refusalOf(response) {
  try {
    const problem = await response.json();
    return new Refusal(response.status, problem.title ?? response.statusText, problem.detail ?? "");
  } catch {
    return new Refusal(response.status, response.statusText || `Status ${response.status}`, "");
  }
}
