// Precision, recall and cost of a class at each threshold.
{
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [440, 320, 62, 22, 12, 46];
  const field = (id) => document.getElementById(id);
  const chooser = field("threshold-class");
  const slider = field("threshold");
  const sets = data.classThresholds;
  const bestButton = createButton(); // one button for good: a field that loses the focus to it must not replace it
  const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)}%` : "none");
  // The set to choose on: training images, whose groups were left out (1), where there are such.
  const chosenOn = () => sets.find((entry) => entry.set === 1) || sets[0];
  const countsOf = (entry) => entry.classes[chooser.value];
  const cost = (id) => Math.max(0, Number(field(id).value) || 0);

  function costAt(counts, k) {
    const [total, found, alarms] = counts;
    return (total - found[k]) * cost("cost-miss") + alarms[k] * cost("cost-alarm");
  }

  function bestThreshold(counts) {
    let best = 0;
    for (let k = 1; k < data.thresholds.length; k++) {
      const [a, b] = [costAt(counts, k), costAt(counts, best)];
      // Of equal costs the threshold nearest to one half.
      const isNearer = Math.abs(data.thresholds[k] - 0.5) < Math.abs(data.thresholds[best] - 0.5);
      if (a < b || (a === b && isNearer)) best = k;
    }
    return best;
  }

  function svg(tag, attributes, text) {
    const element = document.createElementNS(NAMESPACE, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const x = (recall) => LEFT + recall * (WIDTH - LEFT - RIGHT);
  const y = (precision) => HEIGHT - BOTTOM - precision * (HEIGHT - TOP - BOTTOM);

  function drawChart(k) {
    const label = `Precision against recall of ${className(+chooser.value)}`;
    const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": label });
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      chart.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(share), y2: y(share) }));
      const text = `${100 * share}%`;
      chart.append(svg("text", { class: "tick", x: LEFT - 7, y: y(share) + 4, "text-anchor": "end" }, text));
      const below = { class: "tick", x: x(share), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" };
      chart.append(svg("text", below, text));
    }
    const middle = { class: "name", x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" };
    chart.append(svg("text", middle, "recall: share of the class that is found"));
    const side = `translate(14 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`;
    chart.append(svg("text", { class: "name", transform: side, "text-anchor": "middle" }, "precision"));
    for (const entry of sets) {
      const counts = countsOf(entry);
      if (!counts) continue;
      const [total, found, alarms] = counts;
      const style = entry === chosenOn() ? "s0" : "s1";
      const points = [];
      data.thresholds.forEach((_, i) => {
        if (found[i] + alarms[i]) points.push([x(found[i] / total), y(found[i] / (found[i] + alarms[i])), i]);
      });
      const path = points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
      chart.append(svg("polyline", { class: `line ${style}`, points: path }));
      for (const [a, b, i] of points) {
        if (i === k) chart.append(svg("circle", { class: `ring ${style}`, cx: a, cy: b, r: 8 }));
        chart.append(svg("circle", { class: `dot ${style}`, cx: a, cy: b, r: 2.8 }));
      }
    }
    field("threshold-chart").replaceChildren(chart);
  }

  function sentence(entry, k) {
    const [total, found, alarms] = countsOf(entry);
    const called = found[k] + alarms[k];
    const name = className(+chooser.value);
    return (
      `On ${data.setTitles[entry.set]}: ${found[k]} of ${total} ${name} found (recall ${percent(found[k], total)}); ` +
      `of ${called} images called ${name}, ${found[k]} are (precision ${percent(found[k], called)}). ` +
      `Cost ${costAt(countsOf(entry), k).toLocaleString("en")}.`
    );
  }

  // The name of a class as one word of a shell, whatever it holds.
  const quoted = (text) => (/^[\w.,=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

  function update() {
    const k = +slider.value;
    const threshold = data.thresholds[k];
    const counts = countsOf(chosenOn());
    slider.setAttribute("aria-valuetext", threshold.toFixed(2));
    const inOrder = [chosenOn(), ...sets.filter((entry) => entry !== chosenOn() && countsOf(entry))];
    const lines = inOrder.map((entry) => createElement("span", sentence(entry, k), "line"));
    field("threshold-text").replaceChildren(createElement("strong", `Threshold ${threshold.toFixed(2)}`), ...lines);
    const best = bestThreshold(counts);
    bestButton.textContent = `Least cost on ${data.setTitles[chosenOn().set]}: ${data.thresholds[best].toFixed(2)}`;
    const option = quoted(`${className(+chooser.value)}=${threshold.toFixed(2)}`);
    const command = createElement("code", `headstart fit DATA --threshold ${option}`);
    field("threshold-command").replaceChildren("To have a model that decides so: ", command);
    drawChart(k);
    const table = field("threshold-table");
    table.caption.textContent = `${className(+chooser.value)}, ${data.setTitles[chosenOn().set]}`;
    table.tBodies[0].replaceChildren(
      ...data.thresholds.map((value, i) => {
        const [total, found, alarms] = counts;
        const row = createElement("tr");
        const heading = createElement("th", value.toFixed(2));
        heading.scope = "row";
        const cells = [percent(found[i], total), percent(found[i], found[i] + alarms[i]), total - found[i], alarms[i]];
        row.append(heading, ...[...cells, costAt(counts, i).toLocaleString("en")].map((cell) => createElement("td", cell)));
        if (i === k) row.className = "selected";
        return row;
      }),
    );
  }

  // The worst class first: that with the most mistakes at one half.
  const half = data.thresholds.indexOf(0.5);
  const entry = chosenOn();
  const mistakes = ([total, found, alarms]) => total - found[half] + alarms[half];
  const classes = entry ? Object.keys(entry.classes) : [];
  classes.sort((a, b) => mistakes(entry.classes[b]) - mistakes(entry.classes[a]));
  if (classes.length) {
    for (const c of classes) {
      const option = createElement("option", className(+c));
      option.value = c;
      chooser.append(option);
    }
    field("threshold-best").append(bestButton);
    bestButton.addEventListener("click", () => {
      slider.value = bestThreshold(countsOf(chosenOn()));
      update();
    });
    slider.max = data.thresholds.length - 1;
    slider.value = half;
    for (const event of ["input", "change"]) field("threshold-form").addEventListener(event, update);
    field("threshold-form").addEventListener("submit", (event) => event.preventDefault());
    update();
  } else field("thresholds").hidden = true;
}
