"use strict";
const form = document.querySelector("form"), search = document.querySelector("#words");
const facets = [...document.querySelectorAll("select")], said = document.querySelector("output");
const tree = document.querySelector("#tree"), all = [...tree.querySelectorAll("details")];
const branches = all.filter((details) => details.matches(".branch"));
const pairs = all.filter((details) => details.matches(".pair")).map((details) => {
  let above = details.firstElementChild.textContent;
  for (let up = details.parentElement.closest("details"); up; up = up.parentElement.closest("details"))
    above += " " + up.firstElementChild.textContent;
  const seen = above.toLowerCase(), text = seen + details.textContent.toLowerCase();
  return { details, seen, text, applies: details.dataset.applies.split(" ") };
});
let before = null; // which branches stood open when the search began

function judged(applies) {
  return applies[0] === "any" || facets.every((facet) => {
    const named = applies.filter((word) => facet.dataset.words.split(" ").includes(word));
    return !facet.value || !named.length || named.includes(facet.value);
  });
}

function highlight(words) {
  if (!("highlights" in CSS)) return;
  CSS.highlights.delete("found");
  const ranges = [];
  const walker = document.createTreeWalker(tree, NodeFilter.SHOW_TEXT);
  while (words.length && walker.nextNode()) {
    const text = walker.currentNode.data.toLowerCase();
    for (const word of words)
      for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
        const range = new Range();
        range.setStart(walker.currentNode, at);
        range.setEnd(walker.currentNode, at + word.length);
        ranges.push(range);
      }
  }
  if (ranges.length) CSS.highlights.set("found", new Highlight(...ranges));
}

function narrow() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const narrowed = words.length > 0 || facets.some((facet) => facet.value);
  if (words.length && !before) before = all.map((details) => details.open);
  if (!words.length && before) {
    all.forEach((details, number) => { details.open = before[number]; });
    before = null;
  }
  let shown = 0;
  for (const { details, seen, text, applies } of pairs) {
    const fits = judged(applies) && words.every((word) => text.includes(word));
    details.parentElement.hidden = !fits;
    shown += fits;
    if (words.length) details.open = fits && !words.every((word) => seen.includes(word));
  }
  for (const branch of branches) {
    const found = branch.querySelectorAll("li:not([hidden]) > .pair").length;
    branch.parentElement.hidden = !found;
    branch.querySelector(".count").textContent = found;
    if (words.length) branch.open = found > 0;
  }
  said.textContent = !narrowed ? `${pairs.length} pairs`
    : shown ? `${shown} of ${pairs.length} pairs` : "No pair fits; Escape clears the search.";
  highlight(words);
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let up = target; up; up = up.parentElement.closest("details")) up.open = true;
  target.scrollIntoView({ block: "center" });
}

search.addEventListener("input", narrow);
facets.forEach((facet) => facet.addEventListener("change", narrow));
form.addEventListener("submit", (event) => event.preventDefault());
document.querySelector("#unfold").addEventListener("click", () => 
  branches.forEach((branch) => { branch.open = true; }));
document.querySelector("#fold").addEventListener("click", () =>
  all.forEach((details) => { details.open = false; }));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && document.activeElement === search) {
    search.value = "";
    narrow();
  }
});
window.addEventListener("hashchange", reveal);
form.hidden = false;
narrow();
reveal();
