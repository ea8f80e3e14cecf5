"use strict";
// Elements with text: what comes from the data is always set as text, never read as markup.
function createElement(tag, text, className) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function createButton(text, className) {
  const button = createElement("button", text, className);
  button.type = "button";
  return button;
}

// Act when a form has other values than before. A text field reports its text once more when it is left, by a click on
// what it has found, say: that must not be made anew under the click.
function onNewValues(form, act) {
  const values = () => JSON.stringify([...form.elements].map((field) => [field.value, field.checked]));
  let last = values();
  for (const event of ["input", "change"]) {
    form.addEventListener(event, () => {
      if (values() === last) return;
      last = values();
      act();
    });
  }
}

// A screen on which little is shown at first, so that the page stays short enough to leaf through.
const isNarrow = matchMedia("(max-width: 640px)").matches;

// Lists of which only the first part is shown: a button shows up to twelve more.
for (const button of document.querySelectorAll("button.reveal")) {
  const block = button.closest(".more").previousElementSibling;
  if (isNarrow) for (const part of [...block.children].slice(6)) part.hidden = true;
  const hiddenParts = () => [...block.children].filter((part) => part.hidden);
  const label = () => {
    button.hidden = !hiddenParts().length;
    button.textContent = `Show ${Math.min(12, hiddenParts().length)} more`;
  };
  const note = button.parentElement.querySelector(".shown-count");
  const showCount = () => {
    if (!note) return;
    note.hidden = !hiddenParts().length;
    note.textContent = note.textContent.replace(/^\d+/, String(block.children.length - hiddenParts().length));
  };
  button.addEventListener("click", () => {
    const next = hiddenParts().slice(0, 12);
    for (const part of next) part.hidden = false;
    const focus = next[0] && next[0].querySelector("button, input, select");
    if (focus) focus.focus();
    label();
    showCount();
  });
  label();
  if (isNarrow) showCount();
}

// Tables sort by a column whose heading is selected: numbers highest first, then lowest first; names the other way.
for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const value = (row) => row.cells[column].dataset.value;
    const isText = body.rows.length && body.rows[0].cells[column].tagName === "TH";
    const first = isText ? "ascending" : "descending";
    const second = isText ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? second : first;
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const compare = isText ? (a, b) => value(a).localeCompare(value(b)) : (a, b) => value(a) - value(b);
    body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
  });
}

// A matrix that is wider than the page says so.
function showScrollHints() {
  for (const hint of document.querySelectorAll(".scroll-hint")) {
    const region = hint.closest(".matrix-block").querySelector(".scroll");
    hint.hidden = region.scrollWidth <= region.clientWidth + 1;
  }
}
addEventListener("resize", showScrollHints);
showScrollHints();

// Folded content is printed too.
let foldedDetails = [];
addEventListener("beforeprint", () => {
  foldedDetails = [...document.querySelectorAll("details:not([open])")];
  for (const details of foldedDetails) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of foldedDetails) details.open = false;
});
