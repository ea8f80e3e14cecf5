// Images of several labels: what is said of each, the matrices of labels that go together, and the search by label.
const HAS = 1, SAID = 2, UNKNOWN = 4;
const labelName = (c) => data.labelNames[c];
const isWrong = (code) => !(code & UNKNOWN) && Boolean(code & HAS) !== Boolean(code & SAID);
const isError = (i) => data.cells[i].some(([, , code]) => isWrong(code));

function verdictOf(code) {
  if (code & UNKNOWN) return "not known whether it has it";
  if (code & HAS) return code & SAID ? "found" : "missed";
  return code & SAID ? "a false alarm" : "rightly not said";
}

function captionOf(i) {
  const shown = data.cells[i].map(([c, percent, code]) => {
    const verdict = isWrong(code) ? ` (${verdictOf(code)})` : "";
    return `${labelName(c)} ${percent.toFixed(1)}%${verdict}`;
  });
  return shown.join(", ");
}

function describeImage(i) {
  const has = data.cells[i].filter(([, , code]) => code & HAS).map(([c]) => labelName(c));
  const lines = data.cells[i].map(([c, percent, code]) => `${labelName(c)}: ${percent.toFixed(1)}%, ${verdictOf(code)}`);
  const unknown = data.unknown[i];
  if (unknown) lines.push(`It is not known of ${unknown === 1 ? "1 label whether the image has it" : `${unknown} labels whether the image has them`}.`);
  return { title: has.join(", ") || "None of the labels", lines: [...lines, data.setLabels[data.setIndex[i]], data.paths[i]] };
}

function hasCell(i, label, flag) {
  return data.cells[i].some(([c, , code]) => c === label && code & flag);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-first]");
  if (!button) return;
  const [first, second] = [+button.dataset.first, +button.dataset.second];
  const table = button.closest("table");
  const flag = table.dataset.what === "said" ? SAID : HAS;
  const images = [];
  for (let i = 0; i < count; i++) {
    if (data.setIndex[i] === +table.dataset.set && hasCell(i, first, flag) && hasCell(i, second, flag)) images.push(i);
  }
  const total = cellCount(button);
  const number = images.length < total ? `${images.length} of ${total}` : `${images.length}`;
  const names = first === second ? labelName(first) : `${labelName(first)} and ${labelName(second)}`;
  const how = flag === SAID ? "predicted" : "labelled";
  openDialog(`${names}, ${how} (${data.setLabels[+table.dataset.set]}): ${number} image${total === 1 ? "" : "s"}`, images);
});

const labelsWith = (flag) => data.cells.flat().filter(([, , code]) => code & flag).map(([c]) => c);
addOptions("true", labelsWith(HAS), labelName);
addOptions("said", labelsWith(SAID), labelName);
makeSearch((i, wanted) =>
  [["true", HAS], ["said", SAID]].every(([name, flag]) => wanted[name] === undefined || hasCell(i, +wanted[name], flag)),
);
