// Charts in SVG, drawn by attributes, each with a text beside it that says the same.

const SPACE = "http://www.w3.org/2000/svg";

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A share and its interval on a line from 0 to 100%. */
export function intervalChart(value, [low, high]) {
  const x = (share) => 6 + 288 * share;
  return shape(
    "svg",
    { viewBox: "0 0 300 34", class: "chart", "aria-hidden": "true" },
    shape("line", { x1: x(0), x2: x(1), y1: 12, y2: 12, class: "rail-line" }),
    shape("line", { x1: x(low), x2: x(high), y1: 12, y2: 12, class: "band" }),
    shape("circle", { cx: x(value), cy: 12, r: 6, class: "dot" }),
    ...[0, 0.5, 1].map((share) =>
      shape(
        "text",
        { x: x(share), y: 31, class: "tick", "text-anchor": ["start", "middle", "end"][2 * share] },
        `${100 * share}%`,
      ),
    ),
  );
}

/** Recall after so many images: points {images, recall, interval}, and what is expected of more. */
export function curveChart(points, expected) {
  const all = expected ? [...points, expected] : points;
  const most = Math.max(...all.map((point) => point.images), 1);
  const least = Math.min(...all.map((point) => point.interval?.[0] ?? point.recall));
  const floor = Math.max(0, Math.floor(10 * least - 0.5) / 10);
  const x = (images) => 34 + (252 * images) / most,
    y = (share) => 12 + (108 * (1 - share)) / Math.max(0.1, 1 - floor);
  const path = (list) => list.map((point, i) => `${i ? "L" : "M"}${x(point.images)} ${y(point.recall)}`).join("");
  const parts = [1, (1 + floor) / 2, floor].map((share) =>
    shape(
      "g",
      {},
      shape("line", { x1: 34, x2: 294, y1: y(share), y2: y(share), class: "grid-line" }),
      shape("text", { x: 29, y: y(share) + 4, class: "tick", "text-anchor": "end" }, `${Math.round(100 * share)}%`),
    ),
  );
  for (const point of all) {
    if (point.interval)
      parts.push(
        shape("line", {
          x1: x(point.images),
          x2: x(point.images),
          y1: y(point.interval[0]),
          y2: y(point.interval[1]),
          class: "whisker",
        }),
      );
  }
  parts.push(shape("path", { d: path(points), class: "curve" }));
  if (expected && points.length)
    parts.push(shape("path", { d: path([points.at(-1), expected]), class: "curve expected" }));
  let written = Infinity; // where the last number stands: those that would touch it are left out
  for (const point of all.toReversed()) {
    const at = x(point.images);
    const className = point === expected ? "dot hollow" : "dot";
    parts.push(shape("circle", { cx: at, cy: y(point.recall), r: 4.5, class: className }));
    if (written - at < 26) continue;
    parts.push(shape("text", { x: at, y: 138, class: "tick", "text-anchor": "middle" }, String(point.images)));
    written = at;
  }
  return shape("svg", { viewBox: "0 0 300 144", class: "chart", "aria-hidden": "true" }, ...parts);
}
