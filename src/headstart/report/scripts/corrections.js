// The page of a check: findings with boxes to tick, and the table that holds what was ticked.
const data = JSON.parse(document.getElementById("check-data").textContent);
const FINDINGS_PER_KIND = 12;
const IMAGES_PER_FINDING = 6;
const OTHERS_PER_PAGE = 24;
const GROUPS = ["A", "B", "C", "D", "E", "F"];
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const byId = (id) => document.getElementById(id);
// Where images have several labels, relabelling turns labels: one that an image has is removed, another one added.
const isMultiLabel = data.isMultiLabel;
// What was ticked, by number of the image: drop, relabel (the index of the new class, or those of the labels that are
// turned) and group (letter or "").
const changes = new Map();
let isSaved = true;

function createImage(i, decorative) {
  if (!data.images[i].jpeg) return createElement("span", "no preview", "no-preview");
  const image = createElement("img");
  image.src = data.images[i].jpeg;
  image.alt = decorative ? "" : data.images[i].path;
  image.decoding = "async";
  return image;
}

function describeImage(i) {
  const { path, label, split } = data.images[i];
  return { title: label || "no label", lines: [split, path] };
}

const changeOf = (i) => changes.get(i) || { drop: false, relabel: [], group: "" };

function change(i, part) {
  const changed = { ...changeOf(i), ...part };
  if (changed.drop || changed.relabel.length || changed.group) changes.set(i, changed);
  else changes.delete(i);
  isSaved = false;
  showChange(i);
  summarise();
}

// An image may belong to several findings: all its boxes show the same.
function showChange(i) {
  const { drop, relabel, group } = changeOf(i);
  for (const card of document.querySelectorAll(`[data-card="${i}"]`)) {
    card.classList.toggle("dropped", drop);
    card.querySelector(".drop").checked = drop;
    const choice = card.querySelector(".class-choice");
    if (relabel.length && !isMultiLabel) choice.value = relabel[0];
    card.querySelector(".relabel").checked = relabel.includes(+choice.value);
    card.querySelector(".group").checked = group !== "";
    if (group) card.querySelector(".group-choice").value = group;
  }
}

function createBox(className, text, name) {
  const label = createElement("label", undefined, "tick");
  const box = createElement("input", undefined, className);
  box.type = "checkbox";
  box.setAttribute("aria-label", `${text} ${name}`);
  label.append(box, text);
  return [label, box];
}

function createChoice(className, options, name) {
  const select = createElement("select", undefined, className);
  select.setAttribute("aria-label", name);
  for (const [value, text] of options) {
    const option = createElement("option", text);
    option.value = value;
    select.append(option);
  }
  return select;
}

// What choosing label ``c`` of an image does: add it, also where it is not known, or remove it.
function turnText(c, { holds, unknown, isRestUnknown }) {
  if (holds.includes(c)) return `\u2212 ${data.classes[c]}`;
  return `+ ${data.classes[c]}${isRestUnknown || unknown.includes(c) ? " (not known)" : ""}`;
}

function createControls(i, suggestion) {
  const { path, label } = data.images[i];
  const controls = createElement("div", undefined, "controls");
  const [dropLabel, drop] = createBox("drop", "drop", path);
  drop.addEventListener("change", () => change(i, { drop: drop.checked }));
  const [relabelLabel, relabel] = createBox("relabel", isMultiLabel ? "change" : "relabel", path);
  const others = isMultiLabel
    ? data.classes.map((_, c) => [c, turnText(c, data.images[i])])
    : data.classes.map((name, c) => [c, name]).filter(([, name]) => name !== label);
  const classChoice = createChoice("class-choice", others, `${isMultiLabel ? "change" : "new class"} of ${path}`);
  const suggested = data.classes.indexOf(suggestion);
  if (suggestion && others.some(([c]) => c === suggested)) classChoice.value = suggested;
  relabel.disabled = classChoice.disabled = !others.length;
  relabel.addEventListener("change", () => {
    const rest = isMultiLabel ? changeOf(i).relabel.filter((c) => c !== +classChoice.value) : [];
    change(i, { relabel: relabel.checked ? [...rest, +classChoice.value] : rest });
  });
  classChoice.addEventListener("change", () => {
    if (isMultiLabel) showChange(i);
    else change(i, { relabel: [+classChoice.value] });
  });
  const [groupLabel, group] = createBox("group", "group", path);
  const groupChoice = createChoice("group-choice", GROUPS.map((letter) => [letter, letter]), `group of ${path}`);
  group.addEventListener("change", () => change(i, { group: group.checked ? groupChoice.value : "" }));
  groupChoice.addEventListener("change", () => change(i, { group: groupChoice.value }));
  for (const parts of [[dropLabel], [relabelLabel, classChoice], [groupLabel, groupChoice]]) {
    const line = createElement("div", undefined, "control");
    line.append(...parts);
    controls.append(line);
  }
  return controls;
}

function createCard(i, suggestion) {
  const { path, label, split, row, jpeg } = data.images[i];
  const card = createElement("figure", undefined, "card");
  const caption = createElement("figcaption");
  if (jpeg) {
    const button = createButton(undefined, "enlarge");
    button.dataset.image = i;
    button.append(createImage(i, true));
    button.setAttribute("aria-label", `Enlarge ${path}`);
    card.append(button);
  } else card.append(createImage(i, true));
  caption.append(createElement("bdi", [label, split].filter(Boolean).join(", ")), createElement("bdi", path, "path"));
  if (data.table && row >= 0) {
    card.dataset.card = i;
    caption.append(createControls(i, suggestion));
  }
  card.append(caption);
  return card;
}

function createFinding(finding) {
  const item = createElement("li", undefined, finding.images.length === 1 ? "check-finding single" : "check-finding");
  const text = createElement("p", undefined, "finding-text");
  const action = ` How sure: ${finding.certainty}. To do: ${finding.action}`;
  text.append(createElement("strong", finding.why), createElement("span", action));
  const cards = createElement("div", undefined, "cards");
  const appendImages = (images) => cards.append(...images.map((i) => createCard(i, finding.suggestion)));
  appendImages(finding.images.slice(0, IMAGES_PER_FINDING));
  item.append(text, cards);
  const rest = finding.images.slice(IMAGES_PER_FINDING);
  if (rest.length) {
    const more = createButton(`Show ${rest.length} more images`, "plain-button");
    more.addEventListener("click", () => {
      appendImages(rest);
      rest.filter((i) => data.table && data.images[i].row >= 0).forEach(showChange);
      cards.children[IMAGES_PER_FINDING].querySelector("button, input, select")?.focus();
      more.remove();
    });
    item.append(more);
  }
  if (finding.more) item.append(createElement("p", `and ${finding.more} more images, which the table names`, "more"));
  const inTable = finding.images.filter((i) => data.images[i].row >= 0);
  if (data.table && inTable.length > 1) {
    const button = createButton("Drop all but the first", "plain-button");
    button.addEventListener("click", () => inTable.forEach((i, place) => change(i, { drop: place > 0 })));
    item.append(button);
  }
  return item;
}

function showKind(kind, findings) {
  const section = createElement("section");
  section.id = `find-${kind.kind}`;
  const heading = createElement("h2", `${kind.title} `);
  heading.append(createElement("span", String(findings.length), "count"));
  const list = createElement("ul", undefined, "check-findings");
  list.dataset.gallery = kind.kind;
  const more = createButton(undefined, "plain-button");
  let rest = findings;
  const showMore = () => {
    const next = rest.slice(0, FINDINGS_PER_KIND).map(createFinding);
    rest = rest.slice(FINDINGS_PER_KIND);
    list.append(...next);
    for (const card of list.querySelectorAll("[data-card]")) showChange(+card.dataset.card);
    more.hidden = !rest.length;
    more.textContent = `Show ${Math.min(FINDINGS_PER_KIND, rest.length)} more of ${rest.length}`;
    return next;
  };
  more.addEventListener("click", () => {
    const focus = showMore()[0].querySelector("button, input, select");
    if (focus) focus.focus();
  });
  showMore();
  section.append(heading, createElement("p", kind.description), list, more);
  return section;
}

// Images without a finding are found by their names and classes, and can be corrected as well.
function showOthers(text, onlyChanged) {
  const section = createElement("section");
  section.id = "other-images";
  const all = data.images.length - data.firstOther;
  let rest = [];
  for (let i = data.firstOther; i < data.images.length && (text || onlyChanged); i++) {
    if (onlyChanged && !changes.has(i)) continue;
    const { path, label } = data.images[i];
    if (!text || path.toLowerCase().includes(text) || label.toLowerCase().includes(text)) rest.push(i);
  }
  const heading = createElement("h2", "Images without findings ");
  heading.append(createElement("span", String(text || onlyChanged ? rest.length : all), "count"));
  const hint = "Type a part of a file name, or a class, in the search above to see them and to correct them.";
  section.append(heading);
  if (!text && !onlyChanged) section.append(createElement("p", hint));
  const found = rest.length;
  const cards = createElement("div", undefined, "cards");
  cards.dataset.gallery = "others";
  const more = createButton("", "plain-button");
  const showMore = () => {
    const next = rest.slice(0, OTHERS_PER_PAGE);
    rest = rest.slice(OTHERS_PER_PAGE);
    cards.append(...next.map((i) => createCard(i, "")));
    next.forEach(showChange);
    more.hidden = !rest.length;
    more.textContent = `Show ${Math.min(OTHERS_PER_PAGE, rest.length)} more of ${rest.length}`;
    return cards.children[cards.children.length - next.length];
  };
  more.addEventListener("click", () => showMore().querySelector("button, input, select")?.focus());
  if (found) {
    showMore();
    section.append(cards, more);
  }
  return [section, found];
}

function showFindings() {
  const text = byId("filter-text").value.trim().toLowerCase();
  const [kindWanted, certainty] = [byId("filter-kind").value, byId("filter-certainty").value];
  const onlyChanged = byId("filter-changed").checked;
  let shown = 0;
  const sections = [];
  for (const kind of data.kinds) {
    if (kindWanted && kind.kind !== kindWanted) continue;
    const findings = kind.findings.filter((finding) => {
      if (certainty && finding.certainty !== certainty) return false;
      if (onlyChanged && !finding.images.some((i) => changes.has(i))) return false;
      const images = finding.images.map((i) => data.images[i]);
      const texts = [finding.why, ...images.flatMap(({ path, label }) => [path, label])];
      return !text || texts.some((part) => part.toLowerCase().includes(text));
    });
    shown += findings.length;
    if (findings.length) sections.push(showKind(kind, findings));
  }
  let others = 0;
  if (data.table && data.images.length > data.firstOther && !kindWanted && !certainty) {
    const [section, found] = showOthers(text, onlyChanged);
    sections.push(section);
    others = found;
  }
  byId("findings").replaceChildren(...sections);
  for (const i of changes.keys()) showChange(i);
  byId("find-count").textContent = count(shown, "finding") + (others ? `, ${count(others, "other image")}` : "");
}

// The group of each row: images of one letter, and all that were in a group with one of them, become one group.
function groupCells() {
  const cells = data.table.rows.map((row) => row[3]);
  for (const letter of GROUPS) {
    const members = [...changes].filter(([, value]) => value.group === letter && !value.drop).map(([i]) => i);
    const joined = new Set(members.map((i) => cells[data.images[i].row]));
    if (joined.size < 2) continue;
    const [first] = joined;
    cells.forEach((cell, row) => {
      if (joined.has(cell)) cells[row] = first;
    });
  }
  return cells;
}

// The text of the cell with the labels of an image of which those in ``turned`` change, as check.table would write it.
function labelText({ holds, unknown, isRestUnknown }, turned) {
  const { labels, starts, asLists } = data.table;
  const held = data.classes.map((_, c) => c).filter((c) => holds.includes(c) !== turned.includes(c));
  const parts = held.map((c, place) => (place || asLists ? labels : starts)[c]);
  parts.push(...unknown.filter((c) => !turned.includes(c)).map((c) => `?${labels[c]}`));
  if (isRestUnknown) parts.push("?");
  return asLists && parts.length ? JSON.stringify(parts) : parts.join(";");
}

// The first changed image of which no reader of tables would take the labels, since their cell is too long.
function tooLong() {
  if (!isMultiLabel) return undefined;
  return [...changes.keys()].find((i) => {
    const { drop, relabel } = changes.get(i);
    return !drop && relabel.length && labelText(data.images[i], relabel).length > data.table.maxCell;
  });
}

function tableText() {
  const groups = groupCells();
  const byRow = new Map([...changes].map(([i, value]) => [data.images[i].row, { ...value, i }]));
  const lines = [data.table.header];
  data.table.rows.forEach(([path, label, split, , rest], row) => {
    const { drop, relabel, i } = byRow.get(row) || { drop: false, relabel: [] };
    if (drop) return;
    const newLabel = () =>
      isMultiLabel ? `"${labelText(data.images[i], relabel).replaceAll('"', '""')}"` : data.table.labels[relabel[0]];
    const cells = [path, relabel.length ? newLabel() : label, split, groups[row], rest];
    lines.push(`${cells.join(",")}\n`);
  });
  return lines.join("");
}

function summarise() {
  if (!byId("summary")) return;
  const values = [...changes.values()];
  const dropped = values.filter((value) => value.drop).length;
  const relabelled = values.filter((value) => value.relabel.length && !value.drop);
  const turned = relabelled.reduce((sum, value) => sum + value.relabel.length, 0);
  const changed = isMultiLabel
    ? `${count(turned, "label")} of ${count(relabelled.length, "image")} changed`
    : `${relabelled.length} relabelled`;
  const grouped = values.filter((value) => value.group && !value.drop).length;
  const rows = data.table.rows.length - dropped;
  byId("summary").textContent =
    `${dropped} dropped, ${changed}, ${grouped} grouped: ` +
    `the table has ${rows.toLocaleString("en")} of ${data.table.rows.length.toLocaleString("en")} images.`;
}

if (byId("filters")) {
  for (const kind of data.kinds) {
    const option = createElement("option", kind.title);
    option.value = kind.kind;
    byId("filter-kind").append(option);
  }
  onNewValues(byId("filters"), showFindings);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  showFindings();
  summarise();
}
if (byId("save")) {
  byId("save").addEventListener("click", () => {
    const long = tooLong();
    if (long !== undefined) {
      const limit = data.table.maxCell.toLocaleString("en");
      byId("summary").textContent =
        `Nothing was saved: the labels of ${data.images[long].path} have more than the ${limit} characters that a ` +
        "reader of tables takes; add fewer of them.";
      return;
    }
    const link = createElement("a");
    link.href = URL.createObjectURL(new Blob([tableText()], { type: "text/csv" }));
    link.download = "corrections.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    isSaved = true;
  });
  addEventListener("beforeunload", (event) => {
    if (!isSaved) event.preventDefault();
  });
  // What gets the focus is scrolled to where the bar, of any height, does not hide it.
  const bar = document.querySelector(".save-bar");
  new ResizeObserver(() => {
    document.documentElement.style.scrollPaddingBottom = `${bar.offsetHeight + 8}px`;
  }).observe(bar);
}
