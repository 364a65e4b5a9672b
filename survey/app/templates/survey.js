// Keys for the three answers. The page works without this file, with its buttons.
"use strict";
const form = document.querySelector("form.question");
const keys = {
  ArrowLeft: "left", 1: "left",
  " ": "same", 2: "same",
  ArrowRight: "right", 3: "right",
};
const shown = performance.now();
const TOO_SOON = 200; // milliseconds: the end of the last key press, not an answer
let sent = false;

document.addEventListener("keydown", (event) => {
  const choice = keys[event.key];
  if (!choice || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  // Space on a focused link, button or summary does what it does everywhere.
  if (event.key === " " && event.target.closest("a, button, summary")) return;
  event.preventDefault();
  if (performance.now() - shown < TOO_SOON) return;
  form.querySelector(`button[value="${choice}"]`).click();
});

form.addEventListener("submit", (event) => {
  if (sent) event.preventDefault(); // a double click is one answer
  sent = true;
  form.querySelector(".answers").classList.add("sent");
});

// Back from the history the page may be shown as it was left: ready to be answered again.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  sent = false;
  form.querySelector(".answers").classList.remove("sent");
});
