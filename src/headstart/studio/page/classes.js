// The classes: what the grid shows, where images are added, new ones and other names.

import { ask } from "../shared/api.js";
import { button, byId, count, make } from "../shared/dom.js";
import { show, view } from "./grid.js";
import { noun } from "./labels.js";
import { change, isSeveral, store, tell } from "./store.js";

let openAdd = () => {},
  shown = "";

/** Draw the list where it has changed: focus stays where it was. */
export function showClasses() {
  const { classes } = store.state;
  const key = JSON.stringify([classes, view.label, store.state.images]);
  if (key === shown) return;
  shown = key;
  const focus = document.activeElement?.dataset?.focus;
  const all = button("", () => show({}), {
    className: "class-row",
    "aria-pressed": String(!view.label),
    "data-focus": "all",
  });
  all.append(
    make("span", { className: "number" }),
    make("span", { className: "name" }, "All images"),
    make("span", { className: "soft" }, count(store.state.images)),
  );
  const first = make("li", {}, all);
  if (isSeveral()) {
    byId("h-classes").textContent = "Labels";
    byId("new-class-name").placeholder = "New label";
    byId("new-class").querySelector("label").textContent = "Name of the new label";
    byId("new-class").querySelector("button").textContent = "Add label";
    first.append(
      button("+", () => openAdd(""), {
        className: "plus",
        title: "Add images",
        "aria-label": "Add images without a label",
        "data-focus": "add",
      }),
    );
  }
  byId("class-list").replaceChildren(first, ...classes.map((entry, i) => item(entry, i)));
  if (focus)
    byId("class-list")
      .querySelector(`[data-focus="${CSS.escape(focus)}"]`)
      ?.focus();
}

function item({ name, images, unknown, why }, i) {
  const row = button("", () => show({ label: name }), {
    className: "class-row",
    "aria-pressed": String(view.label === name),
    "data-focus": `c${i}`,
  });
  const key =
    i < 9
      ? make("kbd", { className: "number", title: `Key ${i + 1} ${isSeveral() ? "gives and takes this label" : "gives this class"}` }, String(i + 1))
      : make("span", { className: "number" });
  row.append(
    key,
    make("bdi", { className: "name", title: why ? `${name}: not learned yet, ${why}` : name }, name),
    ...(unknown ? [make("span", { className: "soft small", title: `not known of ${unknown}` }, `${count(unknown)} ?`)] : []),
    make("span", { className: "soft" }, count(images)),
  );
  const add = button("+", () => openAdd(name), {
    className: "plus",
    title: "Add images",
    "aria-label": `Add images to ${name}`,
    "data-focus": `a${i}`,
  });
  const parts = [row, add];
  if (view.label === name) {
    parts.push(
      button("✎", () => rename(name), {
        className: "plus",
        title: "Rename",
        "aria-label": `Rename ${name}`,
        "data-focus": `r${i}`,
      }),
    );
  }
  const made = make("li", {}, ...parts);
  made.dataset.class = name;
  return made;
}

async function rename(name) {
  const field = make("input", { value: name, maxLength: 100, id: "rename-to", required: true });
  const choice = await ask(
    `Another name for ${name}`,
    [make("label", { htmlFor: "rename-to" }, "Name "), field],
    ["Rename", "Cancel"],
  );
  const to = field.value.trim();
  if (choice !== "Rename" || !to || to === name) return;
  if (!(await change("api/classes/rename", { name, to }))) return;
  const entry = store.state.classes.find((known) => known.name === name);
  if (entry) entry.name = to; // at once: what is shown is asked for by the name
  tell(`${name} is called ${to} now.`);
  show({ label: to });
}

/** Make a class unless it is there; returns whether it is. */
export async function makeClass(name) {
  if (store.state.classes.some((entry) => entry.name === name)) return true;
  const answer = await change("api/classes", { name });
  if (!answer) return false;
  if (!store.state.classes.some((entry) => entry.name === name))
    store.state.classes.push({ name, images: 0, folder: false });
  return true;
}

/** Ask which class images are for; "" when nobody says. */
export async function chooseClass(what) {
  const names = store.state.classes.map(({ name }) => name);
  const field = make("input", { id: "choose-class", maxLength: 100, autocomplete: "off" });
  field.setAttribute("list", "choose-class-names");
  const list = make("datalist", { id: "choose-class-names" }, ...names.map((value) => make("option", { value })));
  const lines = [
    make("label", { htmlFor: "choose-class" }, names.length ? "Class, an old or a new one " : "Name of the class "),
    field,
    list,
  ];
  const choice = await ask(`Which ${noun()} ${what}?`, lines, ["Add", "Cancel"]);
  const name = field.value.trim();
  return choice === "Add" && name && (await makeClass(name)) ? name : "";
}

/** Connect the list and the field for new classes; `add` opens the place where images are added. */
export function startClasses(add) {
  openAdd = add;
  byId("new-class").addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = byId("new-class-name"),
      name = field.value.trim();
    if (name && (await makeClass(name))) field.value = "";
    field.focus();
  });
}

/** One screen for a project without images: what to do, in order. */
export function showStart() {
  const isEmpty = store.state.images === 0;
  byId("start").hidden = !isEmpty;
  byId("filters").hidden = byId("grid").hidden = isEmpty;
  if (!isEmpty) return;
  const { classes, folder } = store.state;
  const several = isSeveral();
  const key = JSON.stringify([several, classes.map(({ name }) => name)]);
  if (byId("start").dataset.key === key) return;
  byId("start").dataset.key = key;
  const field = make("input", {
    maxLength: 100,
    id: "start-class",
    autocomplete: "off",
    placeholder: classes.length ? "another" : `for example: ${several ? "beach" : "ripe"}`,
    required: true,
  });
  const form = make(
    "form",
    { className: "row" },
    make("label", { htmlFor: "start-class", className: "visually-hidden" }, `Name of a ${noun()}`),
    field,
    make("button", {}, several ? "Add label" : "Add class"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await makeClass(field.value.trim())) byId("start-class").focus();
  });
  const cards = classes.map(({ name }) => {
    const card = make(
      "li",
      { className: "start-class" },
      make("bdi", { className: "name" }, name),
      button("Add images", () => openAdd(name)),
      button("Use the camera", () => openAdd(name, { camera: true })),
    );
    card.dataset.class = name;
    return card;
  });
  byId("start").replaceChildren(
    make("h2", { id: "h-start" }, several ? "Teach it what your images show" : "Teach it to tell your images apart"),
    make(
      "ol",
      { className: "steps" },
      several
        ? make("li", {}, make("strong", {}, "Name the labels"), ": an image may have any number of them, or none.", form)
        : make("li", {}, make("strong", {}, "Name the classes"), " you want to tell apart: two or more.", form),
      several
        ? make(
            "li",
            {},
            make("strong", {}, "Add images"),
            ", all together, and label them then by keys: 1 gives or takes the first label. ",
            "Twenty with each label and as many without it are a good start.",
            make("div", { className: "row" }, button("Add images", () => openAdd("")), button("Use the camera", () => openAdd("", { camera: true }))),
          )
        : make(
            "li",
            {},
            make("strong", {}, "Add images to each."),
            " Twenty of each are a good start; the page tells what more would bring.",
            classes.length
              ? make("ul", { className: "start-classes" }, ...cards)
              : make("p", { className: "soft" }, "Your classes will be listed here."),
          ),
      make(
        "li",
        {},
        make("strong", {}, "It learns by itself,"),
        " within seconds. The results show how well, which labels look wrong, and which images it is unsure of.",
      ),
      make(
        "li",
        {},
        make("strong", {}, "Try it"),
        " on new images or the camera, then ",
        make("strong", {}, "save the model"),
        ".",
      ),
    ),
    make(
      "p",
      {},
      several
        ? "Have images already? Drop them here, or folders and zips of them: the name of a folder is the first label of its images."
        : "Have images already? Drop folders here (each becomes a class), a zip of them, or a project of Teachable Machine (.tm).",
    ),
    make(
      "p",
      { className: "soft small" },
      `Nothing leaves this machine. Images are kept in ${folder}${several ? "" : ", one folder for each class"}.`,
    ),
  );
}

/** What the grid says when it shows nothing. */
export function showNothing() {
  const isEmpty = store.state.images > 0 && !view.rows.length;
  byId("nothing").hidden = !isEmpty;
  const several = isSeveral();
  const texts = {
    none: "No image has none of the labels.",
    unknown: "Of every labelled image all labels are known.",
    issues: "No label issues: no label looks wrong.",
    changed: "No label was changed here.",
    failed: "All images could be read.",
    unlabelled: several ? "All images are labelled." : "All images have a class.",
    mistaken: "All images are predicted as they are labelled.",
  };
  byId("nothing").textContent =
    texts[view.show] && !view.label && !view.text ? texts[view.show] : "No image fits the filter.";
  const clear = byId("filter-clear");
  clear.hidden = !(view.label || view.predicted || view.text || view.show !== "all");
  clear.textContent = view.predicted ? `${view.label}, predicted ${view.predicted} · show all` : "Show all";
  byId("filter-state").hidden = byId("filter-state-label").hidden = !(several && view.label);
  byId("filter-state").value = view.state;
}
