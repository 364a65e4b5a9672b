// Asks for the page every two seconds and exchanges the parts that changed.
"use strict";
const EVERY = 2000; // milliseconds

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const parts = fresh.querySelectorAll("[data-live]");
  if (parts.length !== document.querySelectorAll("[data-live]").length) {
    location.reload();
    return;
  }
  document.title = fresh.title;
  for (const part of parts) {
    const shown = document.querySelector(`[data-live="${part.dataset.live}"]`);
    // A folded part stays as the reader left it; a focused button stays focused.
    if (shown.open) part.open = true;
    if (shown.outerHTML === part.outerHTML) continue;
    const focused = shown.contains(document.activeElement);
    shown.replaceWith(part);
    if (focused) part.querySelector("button")?.focus();
  }
}

async function forever() {
  try {
    if (!document.hidden) await refresh();
    document.body.classList.remove("away");
  } catch {
    document.body.classList.add("away"); // the server is stopped, or starts again
  }
  setTimeout(forever, EVERY);
}
setTimeout(forever, EVERY);
