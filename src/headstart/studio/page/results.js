// The results: accuracy with its interval, label issues, the most uncertain images, confusions, the learning curve.

import { request } from "../shared/api.js";
import { button, byId, count, make, percent, plural, rate } from "../shared/dom.js";
import { curveChart, intervalChart } from "./charts.js";
import { show, thumbnail } from "./grid.js";
import { drawLabelParts, LABEL_PARTS, meanPrecision } from "./label_results.js";
import { accept, attempt, isSeveral, relabel, store } from "./store.js";

const LISTED = 5,
  STRIP = 8,
  MORE = 20,
  MATRIX_CLASSES = 10;
const PARTS = {
  issues: "Labels that look wrong",
  uncertain: "Most uncertain next",
  confusion: "What is taken for what",
  curve: "What more images would bring",
};
let shown = "",
  drawing = 0,
  curveClass = "";

/** Draw what has changed. Figures of the accuracy are in the state; the rest is asked for. */
export function showResults(isVisible) {
  const panel = byId("results");
  if (!panel.firstChild) build(panel);
  showAccuracy();
  const { shows, embedding } = store.state;
  const key = JSON.stringify([store.version, shows, embedding.done, store.state.full.state]);
  if (!isVisible || key === shown) return;
  shown = key;
  drawParts();
}

function build(panel) {
  const heading = isSeveral() ? "Mean average precision" : "Accuracy",
    parts = isSeveral() ? LABEL_PARTS : PARTS;
  panel.replaceChildren(
    make(
      "section",
      { id: "accuracy", "aria-labelledby": "h-accuracy" },
      make("h2", { id: "h-accuracy", className: "visually-hidden" }, heading),
      make("div", { id: "accuracy-body" }),
    ),
    ...Object.entries(parts).map(([id, title]) => part(id, title)),
  );
  if (isSeveral()) for (const id of Object.keys(LABEL_PARTS)) byId(id).hidden = true;
}

/** A part of the results: a heading, and a body to fill. */
function part(id, title) {
  return make(
    "section",
    { id, "aria-labelledby": `h-${id}` },
    make("h2", { id: `h-${id}` }, title),
    make("div", { id: `${id}-body` }),
  );
}

/** Which figures these are: those that follow every click, or those of the full choice. */
function source() {
  const { full, shows, embedding } = store.state;
  const reading =
    embedding.done < embedding.total ? ` ${count(embedding.total - embedding.done)} images are still being read.` : "";
  const seconds = full.seconds ? `, in ${full.seconds.toFixed(1)} s` : "";
  if (shows === "full")
    return {
      badge: "full",
      text: `Of the model as it would be saved: everything was chosen anew for these labels${seconds}.${reading}`,
    };
  const state =
    {
      running: "The full choice is running.",
      waiting: "The full choice follows when you pause.",
      failed: `The full choice failed: ${full.error}`,
    }[full.state] ?? "";
  if (shows === "last")
    return {
      badge: "last",
      text: `Predicted by the last full choice, since so many changes are not followed at once; labels are as they are now. ${state}${reading}`,
    };
  return {
    badge: "live",
    text: `Updated after every click, with what was last chosen for the model kept as it is. ${state}${reading}`,
  };
}

function showAccuracy() {
  const { evaluation, full, images } = store.state,
    body = byId("accuracy-body");
  if (!evaluation) {
    const reading = store.state.embedding,
      left = reading.total - reading.done;
    body.replaceChildren(
      make("p", { className: "lead" }, images ? "No accuracy yet." : "The results will be here."),
      make(
        "p",
        { className: "soft" },
        full.state === "failed"
          ? full.error
          : left > 0
            ? `${plural(left, "image")} still to be read.`
            : full.why || `It is measured as soon as ${isSeveral() ? "a label is known" : "two classes have images"} of several scenes.`,
      ),
    );
    return;
  }
  const { value, unit, what } = isSeveral() ? meanPrecision(evaluation) : shareCorrect(evaluation),
    { interval } = evaluation,
    { badge, text } = source();
  if (value === null) {
    body.replaceChildren(make("p", { className: "lead" }, "No mAP yet."), make("p", { className: "soft small" }, text));
    return;
  }
  body.replaceChildren(
    make(
      "p",
      { className: "accuracy-line" },
      make("span", { className: "figure" }, rate(value)),
      unit,
      make("span", { className: `badge ${badge}` }, badge),
    ),
    make("p", {}, `${what} 95% interval ${rate(interval[0])} to ${rate(interval[1])}.`),
    intervalChart(value, interval),
    make("p", { className: "soft small" }, text),
  );
}

function shareCorrect({ accuracy, images, groups }) {
  const scenes = plural(groups, "scene");
  return {
    value: accuracy,
    unit: " ",
    what: `of ${plural(images, "image")} classified correctly, each without having learned from it or its scene (${scenes}).`,
  };
}

async function drawParts() {
  const own = ++drawing;
  if (store.state.shows === "none") {
    for (const id of Object.keys(PARTS)) if (byId(id)) byId(id).hidden = true;
    return;
  }
  if (isSeveral()) {
    await drawLabelParts(() => own === drawing);
    return;
  }
  const parts = await attempt(() =>
    Promise.all([
      request(`api/label-issues?limit=${LISTED}`),
      request(`api/uncertain?limit=${STRIP}`),
      request("api/evaluation"),
    ]),
  );
  if (!parts || own !== drawing) return;
  const [issues, uncertain, evaluation] = parts;
  if (evaluation.accuracy === null) return; // a change has left one class meanwhile: what it tells is drawn next
  for (const id of Object.keys(PARTS)) byId(id).hidden = false;
  showIssues(issues);
  showUncertain(uncertain.images);
  showConfusion(evaluation);
  await showCurve();
}

function showIssues({ issues, total }) {
  const body = byId("issues-body");
  if (!issues.length) {
    body.replaceChildren(make("p", { className: "soft" }, "None: no label looks wrong."));
    return;
  }
  const items = issues.map(({ id, label, suggested, probability, certainty }) =>
    make(
      "li",
      { className: "issue-line" },
      thumbnail(id, `Show the image labelled ${label}`),
      make(
        "div",
        {},
        make("p", {}, "Labelled ", make("strong", {}, label), ", looks like ", make("strong", {}, suggested)),
        make(
          "p",
          { className: "soft small" },
          `${certainty === "likely" ? "Likely" : "Possibly"} wrong: predicted with probability ${rate(probability)}.`,
        ),
        make(
          "div",
          { className: "row" },
          button(`It is ${suggested}`, () => relabel([id], suggested)),
          button("The label is right", () => accept([id])),
        ),
      ),
    ),
  );
  body.replaceChildren(
    make("ul", { className: "plain-list" }, ...items),
    button(`Show all ${count(total)} in the grid`, () => show({ show: "issues" }), { className: "plain" }),
  );
}

function showUncertain(images) {
  byId("uncertain-body").replaceChildren(
    make("p", { className: "soft small" }, "More images like these teach it most."),
    make(
      "div",
      { className: "strip" },
      ...images.map(({ id, label, predicted, probability }) =>
        thumbnail(id, `${label ?? "no class"}, predicted ${predicted} ${percent(probability)}`),
      ),
    ),
    button("Show all, most uncertain first", () => show({ show: "uncertain" }), { className: "plain" }),
  );
}

/** The confusion matrix; of many classes the most frequent confusions. */
function showConfusion({ classes, confusion, by_class: byClass }) {
  const pairs = confusion
    .flatMap((line, i) => line.map((number, j) => ({ number, label: classes[i], predicted: classes[j] })))
    .filter(({ number, label, predicted }) => number && label !== predicted);
  pairs.sort((a, b) => b.number - a.number);
  const select = (label, predicted) => show({ label, predicted, show: "all" });
  if (classes.length > MATRIX_CLASSES) {
    const items = pairs.slice(0, 12).map(({ number, label, predicted }) =>
      make(
        "li",
        {},
        button(`${count(number)} ${label} taken for ${predicted}`, () => select(label, predicted)),
      ),
    );
    byId("confusion-body").replaceChildren(
      items.length
        ? make("ul", { className: "plain-list" }, ...items)
        : make("p", { className: "soft" }, "Nothing: all are classified correctly."),
    );
    return;
  }
  const largest = Math.max(1, ...pairs.map(({ number }) => number));
  const cell = (i, j) => {
    const number = confusion[i][j];
    if (!number) return make("td", { className: "zero" }, "0");
    const shade = i === j ? "correct" : `error shade${Math.ceil((3 * number) / largest)}`;
    const text =
      i === j ? `${classes[i]}, classified correctly: ${number}` : `${classes[i]} taken for ${classes[j]}: ${number}`;
    return make(
      "td",
      {},
      button(count(number), () => select(classes[i], classes[j]), {
        className: shade,
        "aria-label": `${text}. Show them`,
      }),
    );
  };
  const recall = new Map(byClass.map((entry) => [entry.name, entry]));
  const table = make(
    "table",
    { className: "matrix" },
    make("caption", { className: "visually-hidden" }, "Confusion matrix"),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("td"),
        ...classes.map((name) => make("th", { scope: "col", title: name }, make("bdi", {}, name))),
        make("th", { scope: "col" }, "found"),
      ),
    ),
    make(
      "tbody",
      {},
      ...classes.map((name, i) =>
        make(
          "tr",
          {},
          make("th", { scope: "row", title: name }, make("bdi", {}, name)),
          ...classes.map((_, j) => cell(i, j)),
          make("td", { className: "soft" }, recall.get(name)?.recall != null ? rate(recall.get(name).recall) : ""),
        ),
      ),
    ),
  );
  byId("confusion-body").replaceChildren(
    make(
      "p",
      { className: "small soft" },
      "Rows: the label. Columns: what it was taken for. Select a number to see the images.",
    ),
    make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Confusion matrix" }, table),
  );
}

async function showCurve() {
  const own = drawing,
    { classes } = store.state;
  if (!classes.some(({ name }) => name === curveClass)) {
    curveClass = [...classes].filter(({ images }) => images).sort((a, b) => a.images - b.images)[0]?.name ?? "";
  }
  if (!curveClass) return;
  const answer = await attempt(() =>
    request(`api/learning-curve?${new URLSearchParams({ class: curveClass, more: MORE })}`).catch((error) => {
      if (error.status !== 404) throw error;
      return null; // the class has got another name meanwhile: what follows draws anew
    }),
  );
  if (!answer || own !== drawing) return;
  const select = make(
    "select",
    { id: "curve-class" },
    ...classes.map(({ name }) => make("option", { value: name, selected: name === curveClass }, name)),
  );
  select.addEventListener("change", async () => {
    curveClass = select.value;
    await showCurve();
    byId("curve-class").focus();
  });
  const { points, expected, check, why, images, recall } = answer;
  const parts = [
    make("div", { className: "row" }, make("label", { htmlFor: "curve-class" }, `${MORE} more of`), select),
  ];
  if (expected) {
    const gain = 100 * expected.gain,
      sign = gain >= 0 ? "+" : "−";
    parts.push(
      make("p", { className: "lead" }, `${sign}${Math.abs(gain).toFixed(1)} points`),
      make(
        "p",
        {},
        `From ${percent(recall)} of ${curveClass} recognised with ${plural(images, "image")} to about ${percent(expected.recall)} ` +
          `(${percent(expected.interval[0])} to ${percent(expected.interval[1])}) with ${count(expected.images)}.`,
      ),
    );
    if (check)
      parts.push(
        make(
          "p",
          { className: "soft small" },
          `Checked: without ${plural(check.removed, "image")} it predicted ${percent(check.predicted[0])} to ` +
            `${percent(check.predicted[1])} for today; it is ${percent(check.was)}.`,
        ),
      );
  } else parts.push(make("p", { className: "soft" }, why ?? "Too few images to tell."));
  if (points?.length) parts.push(curveChart(points, expected));
  byId("curve-body").replaceChildren(...parts);
}
