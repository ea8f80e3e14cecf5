// Elements and messages. What comes from data is always set as text, never read as markup.

const percents = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** An element with properties (attributes, where a name has a hyphen) and children; strings become text. */
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** A button that does something when it is clicked. */
export function button(text, onclick, properties = {}) {
  return make("button", { type: "button", onclick, ...properties }, text);
}

export const byId = (id) => document.getElementById(id);

/** A share in [0, 1] as a percentage with one decimal. */
export const percent = (share) => percents.format(share);

/** A share that was measured: 100% and 0% only where it is exactly that. */
export function rate(share) {
  if (share < 1 && share >= 0.9995) return `over ${percent(0.999)}`;
  return share > 0 && share < 0.0005 ? `under ${percent(0.001)}` : percent(share);
}

/** A whole number with separators. */
export const count = (number) => number.toLocaleString("en");

/** "1 image", "2 images". */
export const plural = (number, noun, nouns = `${noun}s`) => `${count(number)} ${number === 1 ? noun : nouns}`;

/** Tell a screen reader: the page has an element #live. The same text twice is told twice. */
export function announce(text) {
  const live = byId("live");
  live.textContent = live.textContent === text ? `${text}\u00a0` : text;
}

/** Files that are dropped anywhere on the page or pasted. */
export function onFilesGiven(take) {
  let depth = 0; // dragenter and dragleave come for every element that the pointer crosses
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth += 1;
    document.body.classList.add("over");
  });
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    if (!depth) document.body.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    document.body.classList.remove("over");
    take([...event.dataTransfer.files], event);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files, event);
  });
}
