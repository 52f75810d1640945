// Light, dark, or as the system has it. Runs before the page is drawn, so that it never flashes in the other one.
"use strict";

(() => {
  const KEPT = "understudy-theme";

  function kept() {
    try {
      return localStorage.getItem(KEPT);
    } catch {
      return null; // storage is closed to us: the choice lasts as long as the page
    }
  }

  function keep(theme) {
    try {
      localStorage.setItem(KEPT, theme);
    } catch {
      // see `kept`
    }
  }

  function wear(theme) {
    if (theme === "light" || theme === "dark") {
      document.documentElement.dataset.theme = theme;
    } else {
      delete document.documentElement.dataset.theme;
    }
  }

  wear(kept());
  document.addEventListener("DOMContentLoaded", () => {
    const chosen = document.documentElement.dataset.theme ?? "auto";
    for (const radio of document.querySelectorAll("input[name=theme]")) {
      radio.checked = radio.value === chosen;
      radio.addEventListener("change", () => {
        wear(radio.value);
        keep(radio.value);
      });
    }
  });
})();
