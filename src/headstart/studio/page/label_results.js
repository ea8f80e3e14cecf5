// The results of several labels an image: mAP with its interval, each label, cells that look wrong, uncertain images.

import { request } from "../shared/api.js";
import { button, byId, count, make, percent, plural, rate } from "../shared/dom.js";
import { show, thumbnail } from "./grid.js";
import { setState } from "./labels.js";
import { accept, attempt } from "./store.js";

const LISTED = 5,
  STRIP = 8;

/** The parts of the panel and their headings. */
export const LABEL_PARTS = {
  issues: "Labels that look missing or wrong",
  uncertain: "Most uncertain next",
  labels: "Each label",
};

/** The mean average precision, and how it was measured. */
export function meanPrecision({ mean_average_precision: value, images, groups, labels }) {
  return {
    value,
    unit: " mAP ",
    what:
      `How well the probabilities order the images, a mean over ${plural(labels, "label")} of ${plural(images, "image")}, ` +
      `each predicted without having learned from it or its scene (${plural(groups, "scene")}).`,
  };
}

/** Ask for the rest and draw it, unless something newer is drawn meanwhile. */
export async function drawLabelParts(isCurrent) {
  const parts = await attempt(() =>
    Promise.all([
      request(`api/label-issues?limit=${LISTED}`),
      request(`api/uncertain?limit=${STRIP}`),
      request("api/evaluation"),
    ]),
  );
  if (!parts || !isCurrent()) return;
  for (const id of Object.keys(LABEL_PARTS)) byId(id).hidden = false;
  showIssues(parts[0]);
  showUncertain(parts[1].images);
  showLabels(parts[2]);
}

function showIssues({ issues, total }) {
  const body = byId("issues-body");
  if (!issues.length) {
    body.replaceChildren(make("p", { className: "soft" }, "None: no label looks missing or wrong."));
    return;
  }
  const items = issues.map(({ id, label, state, certainty, why, probability }) => {
    const isMissing = state === "missing";
    return make(
      "li",
      { className: "issue-line" },
      thumbnail(id, `Show the image: ${why}`),
      make(
        "div",
        {},
        make("p", {}, make("strong", {}, label), ` ${certainty === "likely" ? "is probably" : "may be"} ${state} here`),
        make("p", { className: "soft small" }, `Predicted with probability ${rate(probability)}.`),
        make(
          "div",
          { className: "row" },
          button(isMissing ? `Add ${label}` : `Remove ${label}`, () =>
            setState([id], label, isMissing ? "present" : "absent"),
          ),
          button("It is right as it is", () => accept([id], label)),
        ),
      ),
    );
  });
  body.replaceChildren(
    make("ul", { className: "plain-list" }, ...items),
    button(`Show all images of ${plural(total, "such label")} in the grid`, () => show({ show: "issues" }), {
      className: "plain",
    }),
  );
}

function showUncertain(images) {
  byId("uncertain-body").replaceChildren(
    make("p", { className: "soft small" }, "Labels of images like these teach it most."),
    make(
      "div",
      { className: "strip" },
      ...images.map(({ id, label, probability }) => thumbnail(id, `${label}: ${percent(probability)}`)),
    ),
    button("Show all, most uncertain first", () => show({ show: "uncertain" }), { className: "plain" }),
  );
}

/** A table of the labels, those with the lowest average precision first, and why others are not in it. */
function showLabels({ by_label: labels, left_out: leftOut, exact_match: exact, micro_f1: micro }) {
  const rows = [...labels].sort((a, b) => (a.average_precision.value ?? 2) - (b.average_precision.value ?? 2));
  const cell = ({ value, interval }) =>
    make("td", { title: interval ? `95% interval ${rate(interval[0])} to ${rate(interval[1])}` : "" }, value === null ? "–" : rate(value));
  const table = make(
    "table",
    { className: "labels-table" },
    make("caption", { className: "visually-hidden" }, "How well each label is recognised"),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        ...["label", "images", "AP"].map((text) => make("th", { scope: "col" }, text)),
        make("th", { scope: "col" }, make("abbr", { title: "precision" }, "prec.")),
        ...["recall", "F1"].map((text) => make("th", { scope: "col" }, text)),
      ),
    ),
    make(
      "tbody",
      {},
      ...rows.map((entry) =>
        make(
          "tr",
          {},
          make(
            "th",
            { scope: "row" },
            button("", () => show({ label: entry.name }), { className: "plain", title: `Show the images with ${entry.name}` }),
          ),
          make("td", {}, count(entry.images)),
          ...[entry.average_precision, entry.precision, entry.recall, entry.f1].map(cell),
        ),
      ),
    ),
  );
  rows.forEach(({ name }, i) => table.tBodies[0].rows[i].querySelector("button").append(make("bdi", {}, name)));
  const told = (name, { value, interval }) =>
    value === null ? "" : `${name} ${rate(value)} (95% interval ${rate(interval[0])} to ${rate(interval[1])}). `;
  byId("labels-body").replaceChildren(
    make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Table of the labels" }, table),
    ...(exact ? [make("p", { className: "small soft" }, told("Every label right:", exact), told("Micro F1", micro))] : []),
    make(
      "p",
      { className: "small soft" },
      "A label holds from the probability on that the model keeps as its threshold. There is no learning curve and no " +
        "confusion matrix: both are of one class an image.",
    ),
    ...leftOut.map(({ name, why }) =>
      make("p", { className: "small" }, make("strong", {}, make("bdi", {}, name)), ` is not learned yet: ${why}.`),
    ),
  );
}
