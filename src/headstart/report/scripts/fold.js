// On a narrow screen only the result, the classes, the first matrix and the errors are open: the other sections are
// folded under their headings. A link to a section, or to a part of it, opens it.
const OPEN_SECTIONS = ["accuracy", "classes", "confusion-matrix", "errors"];

function foldContent(block, heading, className) {
  const fold = createElement("details", undefined, className);
  const summary = createElement("summary");
  summary.append(heading);
  fold.append(summary, ...block.childNodes);
  block.append(fold);
}

if (isNarrow) {
  for (const section of document.querySelectorAll("main > section")) {
    if (!OPEN_SECTIONS.includes(section.id)) foldContent(section, section.querySelector("h2"), "fold");
  }
  for (const block of document.querySelectorAll(".matrix-block:not(:first-child)")) {
    foldContent(block, block.querySelector("caption").textContent);
  }
}

function unfold(hash) {
  const target = hash.length > 1 && document.getElementById(hash.slice(1));
  if (!target) return;
  const inside = target.querySelector(":scope > .fold");
  for (const fold of [inside, target.closest(".fold")]) if (fold) fold.open = true;
  if (target.matches("details")) target.open = true;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link) unfold(link.hash);  // before the browser scrolls there
});
addEventListener("hashchange", () => unfold(location.hash));
unfold(location.hash);
