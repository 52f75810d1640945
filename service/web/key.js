// The API key: kept in memory, in the storage of this tab if its owner wants that, and sent to nobody but this service.

import { byId } from "./elements.js";

const KEPT = "understudy-key";
const PRINTABLE = /^[!-~]*$/; // what a header can carry

let key = "";

/** The key that was given last; empty where there is none. */
export function currentKey() {
  return key;
}

/** Show the field, and say why. `focus`: only after something that the reader did. */
export function askForKey(why, focus) {
  show(true);
  byId("key-said").textContent = why;
  byId("key").setAttribute("aria-invalid", String(byId("key").value !== ""));
  if (focus) {
    byId("key").focus();
  }
}

/** Nothing is wrong with the key. */
export function keyIsGood() {
  byId("key-said").textContent = "";
  byId("key").setAttribute("aria-invalid", "false");
}

/** Let the field work; `changed` is called when there is another key. */
export function openKeyField(changed) {
  try {
    key = sessionStorage.getItem(KEPT) ?? "";
  } catch {
    byId("key-keep").disabled = true;
  }
  byId("key").value = key;
  byId("key-keep").checked = key !== "";
  byId("key-toggle").addEventListener("click", () => {
    show(byId("key-panel").hidden);
    if (!byId("key-panel").hidden) {
      byId("key").focus();
    }
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = byId("key").value.trim();
    if (!PRINTABLE.test(given)) {
      askForKey("A key has printable ASCII characters and no space.", true);
      return;
    }
    key = given;
    keep();
    changed();
  });
  byId("key-keep").addEventListener("change", keep);
}

function show(open) {
  byId("key-panel").hidden = !open;
  byId("key-toggle").setAttribute("aria-expanded", String(open));
}

function keep() {
  try {
    if (byId("key-keep").checked && key) {
      sessionStorage.setItem(KEPT, key);
    } else {
      sessionStorage.removeItem(KEPT);
    }
  } catch {
    // storage is closed to us: the key lasts as long as the page
  }
}
