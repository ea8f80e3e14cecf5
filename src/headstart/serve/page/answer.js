// An answer of a model as elements: class, bars, prediction set, "none of these", where it looked.

import { make, percent } from "./dom.js";

const SHOWN = 5;
const FOR = [0, 90, 200],
  AGAINST = [230, 110, 0]; // the colours of the report
const OPACITY = 0.6;

/** What an answer says in one line, for a screen reader. */
export function sentence(answer) {
  const [best] = answer.predictions;
  if (answer.none_of_these) return `None of these. Nearest: ${best.label}, ${percent(best.score)}.`;
  return `${best.label}, ${percent(best.score)}.`;
}

/** An answer: {predictions, set, none_of_these, distance, reject_threshold, coverage}. */
export function answerView(answer) {
  const { predictions, none_of_these: isNone } = answer;
  const box = make("div", { className: isNone ? "answer none" : "answer" });
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

/** What the prediction set says. */
function setSentence({ set, coverage, predictions }) {
  if (!set?.length) return "";
  const promise = coverage ? ` In ${percent(coverage).replace(".0%", "%")} of cases the true class is in the set.` : "";
  if (set.length === 1) return `Prediction set: ${set[0]} alone.${promise}`;
  const all = set.length === predictions.length ? " (all classes: the model cannot tell)" : "";
  return `Prediction set: ${set.slice(0, 12).join(", ")}${set.length > 12 ? ` and ${set.length - 12} more` : ""}${all}.${promise}`;
}

/** Bars of the most probable classes; the others on request. */
function barsView(predictions, set) {
  const inSet = new Set(set);
  const line = ({ label, score }) => {
    const fill = make("span");
    fill.style.width = `${100 * score}%`;
    return make(
      "li",
      { className: inSet.has(label) ? "in-set" : "" },
      make("bdi", { className: "name", title: label }, label),
      make("span", { className: "rail", "aria-hidden": "true" }, fill),
      make("span", { className: "percent" }, percent(score)),
    );
  };
  const list = make("ol", { className: "bars", "aria-label": "Probability of each class" });
  list.append(...predictions.slice(0, SHOWN).map(line));
  if (predictions.length <= SHOWN) return list;
  const rest = predictions.slice(SHOWN);
  const more = make("button", { type: "button", className: "plain" }, `Show ${rest.length} more classes`);
  more.addEventListener("click", () => {
    list.append(...rest.map(line));
    more.remove();
  });
  return make("div", {}, list, more);
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
