// An answer of a model as elements: class, bars, prediction set, "none of these", where it looked.

import { make, percent, plural } from "./dom.js";

const SHOWN = 5;
const FOR = [0, 90, 200],
  AGAINST = [230, 110, 0]; // the colours of the report
const OPACITY = 0.6;

/** What is decided, in a few words: the class, or the labels. */
export function verdict({ predictions, labels, none_of_these: isNone }) {
  if (labels) return isNone ? "Unlike the training images" : labels.join(", ") || "No label";
  return isNone ? "None of these" : predictions[0].label;
}

/** What an answer says in one line, for a screen reader. */
export function sentence(answer) {
  const [best] = answer.predictions;
  if (answer.labels) {
    const labels = answer.predictions.filter(({ holds }) => holds).map(({ label, score }) => `${label}, ${percent(score)}`);
    return `${answer.none_of_these ? "Unlike the training images. " : ""}${labels.join("; ") || "No label"}.`;
  }
  if (answer.none_of_these) return `None of these. Nearest: ${best.label}, ${percent(best.score)}.`;
  return `${best.label}, ${percent(best.score)}.`;
}

/** An answer: {predictions, set, none_of_these, distance, reject_threshold, coverage}. */
export function answerView(answer) {
  const { predictions, none_of_these: isNone } = answer;
  const box = make("div", { className: isNone ? "answer none" : "answer" });
  if (answer.labels) {
    box.append(...labelsView(answer));
    return box;
  }
  box.append(make("p", { className: "verdict" }, isNone ? "None of these" : predictions[0].label));
  if (isNone) {
    box.append(
      make(
        "p",
        { className: "doubt" },
        "The image is unlike all that the model learned from. Of its classes the " +
          `nearest is ${predictions[0].label}.`,
      ),
    );
  }
  box.append(barsView(predictions, answer.set ?? []));
  const set = setSentence(answer);
  if (set) box.append(make("p", { className: "set" }, set));
  return box;
}

/** The labels that an image has as chips, all with their probabilities, and those that it could have besides. */
function labelsView({ predictions, labels, none_of_these: isNone, could_have: further, coverage }) {
  const parts = [];
  if (isNone)
    parts.push(
      make("p", { className: "verdict" }, "Unlike the training images"),
      make("p", { className: "doubt" }, "The model has seen nothing like it; what it says of the labels means little."),
    );
  if (labels.length) {
    const chips = labels.map((label) => make("li", {}, make("bdi", {}, label)));
    parts.push(make("ul", { className: "chips", "aria-label": "Labels of the image" }, ...chips));
  } else parts.push(make("p", { className: isNone ? "doubt" : "verdict" }, "No label"));
  parts.push(barsView(predictions, labels));
  parts.push(make("p", { className: "small soft" }, "The line on a bar: from there on the label holds."));
  if (further.length) {
    const promise = coverage
      ? ` Of the labels that images have, ${percent(coverage).replace(".0%", "%")} hold or are named here.`
      : "";
    parts.push(make("p", { className: "set" }, `It could also have: ${listed(further)}.${promise}`));
  }
  return parts;
}

const listed = (names) => `${names.slice(0, 12).join(", ")}${names.length > 12 ? ` and ${names.length - 12} more` : ""}`;

/** What the prediction set says. */
function setSentence({ set, coverage, predictions }) {
  if (!set?.length) return "";
  const promise = coverage ? ` In ${percent(coverage).replace(".0%", "%")} of cases the true class is in the set.` : "";
  if (set.length === 1) return `Prediction set: ${set[0]} alone.${promise}`;
  const all = set.length === predictions.length ? " (all classes: the model cannot tell)" : "";
  return `Prediction set: ${listed(set)}${all}.${promise}`;
}

/** Bars of the most probable classes; the others on request. Those of ``set`` stand out. */
function barsView(predictions, set) {
  const inSet = new Set(set);
  const ofLabels = predictions.some(({ threshold }) => threshold !== undefined);
  const shown = Math.max(SHOWN, ofLabels ? set.length : 0);
  const line = ({ label, score, threshold, holds }) => {
    const fill = make("span");
    fill.style.width = `${100 * score}%`;
    return make(
      "li",
      { className: inSet.has(label) ? "in-set" : "" },
      make("bdi", { className: "name", title: label }, label),
      make("span", { className: "rail", "aria-hidden": "true" }, fill, ...mark(threshold)),
      make("span", { className: "percent" }, percent(score)),
      ...(ofLabels ? [make("span", { className: "visually-hidden" }, holds ? "holds" : "does not hold")] : []),
    );
  };
  const noun = ofLabels ? "label" : "class";
  const list = make("ol", { className: "bars", "aria-label": `Probability of each ${noun}` });
  list.append(...predictions.slice(0, shown).map(line));
  if (predictions.length <= shown) return list;
  const rest = predictions.slice(shown);
  const more = make("button", { type: "button", className: "plain" }, `Show ${ofLabels ? plural(rest.length, "more label") : plural(rest.length, "more class", "more classes")}`);
  more.addEventListener("click", () => {
    list.append(...rest.map(line));
    more.remove();
  });
  return make("div", {}, list, more);
}

/** The place on a bar from which on a label holds. */
function mark(threshold) {
  if (threshold === undefined) return [];
  const line = make("span", { className: "from" });
  line.style.left = `${100 * threshold}%`;
  return [line];
}

/** A canvas over the part of an image that the network saw: blue speaks for the class, orange against it. */
export function activationView({ box, values }) {
  const height = values.length,
    width = values[0].length;
  const canvas = make("canvas", { width, height, "aria-hidden": "true", className: "activation" });
  const [left, top, right, bottom] = [box[0], box[1], box[0] + box[2], box[1] + box[3]];
  canvas.style.left = `${100 * left}%`;
  canvas.style.top = `${100 * top}%`;
  canvas.style.width = `${100 * (right - left)}%`;
  canvas.style.height = `${100 * (bottom - top)}%`;
  const largest = Math.max(1e-12, ...values.flat().map(Math.abs));
  const context = canvas.getContext("2d"),
    image = context.createImageData(width, height);
  values.flat().forEach((value, i) => {
    const colour = value > 0 ? FOR : AGAINST;
    image.data.set([...colour, (255 * OPACITY * Math.abs(value)) / largest], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** What the colours of an activation map mean. */
export function activationLegend({ positive, negative }) {
  return make(
    "p",
    { className: "small soft" },
    make("span", { className: "swatch for" }),
    ` speaks for ${positive}, `,
    make("span", { className: "swatch against" }),
    negative ? ` for ${negative}` : " against it",
  );
}
