"use strict";
(() => {
  const told = JSON.parse(document.getElementById("told").textContent);
  const count = told.path.length;
  const sheet = document.getElementById("sprite");
  const PAGE = 120; // pictures opened at a time
  // Okabe & Ito's colours, which survive colour blindness; shapes tell them apart without any colour.
  const LIGHT = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7500", "#7a6ff0"];
  const DARK = ["#4aa8e8", "#f0b429", "#2fc79a", "#e59ac3", "#9fd4f5", "#ff8a4a", "#cdb93a", "#a9a1ff"];
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  const SHAPES = ["disc", "square", "triangle", "diamond"];
  const OTHER = "#8b939c";
  const wrong = (i) => told.truth[i] !== told.answer[i];

  function make(kind, text, of) {
    const made = document.createElement(kind);
    if (of) made.className = of;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function describe(i) {
    const truth = told.classes[told.truth[i]];
    const answer = told.classes[told.answer[i]];
    const said = wrong(i) ? `is ${truth}, taken for ${answer}` : `is ${truth}, answered right`;
    return `${said}, ${told.sure[i].toFixed(1)}% sure`;
  }

  // The picture of a place: its thumbnail where the page has one, else its square of the sheet.
  const larger = new Map();
  for (const image of document.querySelectorAll("img[data-place]")) larger.set(+image.dataset.place, image.src);
  function picture(i, decorative) {
    let made;
    if (larger.has(i)) {
      made = make("img");
      made.src = larger.get(i);
      made.alt = decorative ? "" : told.path[i];
      return made;
    }
    made = make("canvas");
    made.width = made.height = told.side;
    if (decorative) made.setAttribute("aria-hidden", "true");
    else {
      made.setAttribute("role", "img");
      made.setAttribute("aria-label", told.path[i]);
    }
    const draw = () => {
      const left = (i % told.columns) * told.side;
      const top = Math.floor(i / told.columns) * told.side;
      made.getContext("2d").drawImage(sheet, left, top, told.side, told.side, 0, 0, told.side, told.side);
    };
    if (sheet && sheet.complete && sheet.naturalWidth) draw();
    else if (sheet) sheet.addEventListener("load", draw, { once: true });
    return made;
  }
  for (const place of document.querySelectorAll("[data-again]")) place.append(picture(+place.dataset.again, true));

  // Cells of the confusion matrix open the pictures.
  const dialog = document.getElementById("opened");
  const cards = document.getElementById("opened-cards");
  const more = document.getElementById("more");
  let waiting = [];
  function card(i) {
    const made = make("figure", undefined, wrong(i) ? "card wrong" : "card");
    const words = make("figcaption");
    words.append(make("span", `${told.sure[i].toFixed(1)}% sure`, "sure"), make("bdi", told.path[i], "path"));
    made.append(picture(i, false), words);
    return made;
  }
  function open(title, places) {
    document.getElementById("opened-title").textContent = title;
    cards.replaceChildren();
    waiting = places;
    showMore();
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }
  function showMore() {
    const first = cards.children.length;
    cards.append(...waiting.slice(0, PAGE).map(card));
    waiting = waiting.slice(PAGE);
    more.hidden = !waiting.length;
    more.textContent = `Show more (${waiting.length.toLocaleString("en")} left)`;
    if (first && cards.children[first]) {
      cards.children[first].tabIndex = -1;
      cards.children[first].focus();
    }
  }
  more.addEventListener("click", showMore);
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.addEventListener("click", (event) => {
    const cell = event.target.closest("button[data-truth]");
    if (!cell) return;
    const [truth, answer] = [+cell.dataset.truth, +cell.dataset.answer];
    const set = +cell.closest("[data-set]").dataset.set;
    const places = [];
    for (let i = 0; i < count; i++) {
      if (told.truth[i] === truth && told.answer[i] === answer && told.measured[i] === set) places.push(i);
    }
    places.sort((a, b) => (truth === answer ? told.sure[a] - told.sure[b] : told.sure[b] - told.sure[a]));
    const all = Number(cell.textContent.replace(/[^0-9]/g, "").slice(0, 12));
    const shown = places.length < all && cell.closest(".matrix") ? `${places.length} of ${all}` : `${places.length}`;
    const said = truth === answer ? "answered right" : `taken for ${told.classes[answer]}`;
    const order = truth === answer ? "the least sure first" : "the surest first";
    open(`${told.classes[truth]}, ${said}: ${shown} ${told.sets[set]}, ${order}`, places);
  });

  // The map.
  const canvas = document.getElementById("places");
  const pen = canvas.getContext("2d");
  const preview = document.getElementById("preview-picture");
  const text = document.getElementById("preview-text");
  const hidden = new Set();
  const place = new Map(told.coloured.map((c, n) => [c, n]));
  const mistakes = [];
  for (let i = 0; i < count; i++) if (wrong(i)) mistakes.push(i);
  let layout = told.layouts[0];
  let chosen = -1;
  const group = (i) => (place.has(told.truth[i]) ? told.truth[i] : -1);
  const seen = (i) => !hidden.has(group(i));
  const colour = (c) => (place.has(c) ? (dark.matches ? DARK : LIGHT)[place.get(c)] : OTHER);
  const shape = (c) => (place.has(c) ? SHAPES[place.get(c) % SHAPES.length] : "disc");
  const [xs, ys] = [new Float64Array(count), new Float64Array(count)];
  const across = (i) => xs[i];
  const down = (i) => ys[i];
  function arrange() {
    const [width, height] = [canvas.clientWidth - 20, canvas.clientHeight - 20];
    for (let i = 0; i < count; i++) {
      xs[i] = (layout.x[i] / 1000) * width + 10;
      ys[i] = (1 - layout.y[i] / 1000) * height + 10;
    }
  }

  function mark(to, x, y, size, kind) {
    to.beginPath();
    if (kind === "square") to.rect(x - size * 0.88, y - size * 0.88, size * 1.76, size * 1.76);
    else if (kind === "triangle") {
      to.moveTo(x, y - size * 1.2);
      to.lineTo(x + size * 1.1, y + size * 0.8);
      to.lineTo(x - size * 1.1, y + size * 0.8);
      to.closePath();
    } else if (kind === "diamond") {
      to.moveTo(x, y - size * 1.3);
      to.lineTo(x + size * 1.3, y);
      to.lineTo(x, y + size * 1.3);
      to.lineTo(x - size * 1.3, y);
      to.closePath();
    } else to.arc(x, y, size, 0, 2 * Math.PI);
  }

  function draw() {
    arrange();
    const scale = Math.min(3, window.devicePixelRatio || 1);
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const size = count > 4000 ? 2 : count > 800 ? 2.8 : 4;
    pen.globalAlpha = count > 800 ? 0.6 : 0.8;
    for (let i = 0; i < count; i++) {
      if (!seen(i)) continue;
      pen.fillStyle = colour(told.truth[i]);
      mark(pen, across(i), down(i), size, shape(told.truth[i]));
      pen.fill();
    }
    pen.globalAlpha = 1;
    const many = mistakes.length > 300;
    pen.lineWidth = many ? 1.2 : 1.8;
    for (const i of mistakes) {
      if (!seen(i)) continue;
      pen.strokeStyle = colour(told.truth[i]);
      mark(pen, across(i), down(i), size + (many ? 2 : 4.5), "disc");
      pen.stroke();
    }
    if (chosen >= 0) {
      pen.strokeStyle = getComputedStyle(canvas).color;
      pen.lineWidth = 2.5;
      mark(pen, across(chosen), down(chosen), size + 8, "disc");
      pen.stroke();
    }
  }

  let waits = false;
  function redraw() {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      draw();
    });
  }

  function choose(i) {
    if (i < 0 || i === chosen) return;
    chosen = i;
    canvas.dataset.chosen = i;
    preview.replaceChildren(picture(i, true));
    text.replaceChildren(make("strong", describe(i)), make("br"), make("bdi", told.path[i], "path"));
    redraw();
  }

  function nearest(x, y, within) {
    let best = -1;
    let least = within * within;
    for (let i = 0; i < count; i++) {
      if (!seen(i)) continue;
      const far = (across(i) - x) ** 2 + (down(i) - y) ** 2;
      if (far <= least) [best, least] = [i, far];
    }
    return best;
  }

  // The nearest picture within 45 degrees of an arrow; one at the very same place counts by its number.
  function step(dx, dy) {
    const [x, y] = [across(chosen), down(chosen)];
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < count; i++) {
      if (i === chosen || !seen(i)) continue;
      const ahead = (across(i) - x) * dx + (down(i) - y) * dy;
      const aside = Math.abs((across(i) - x) * dy) + Math.abs((down(i) - y) * dx);
      const here = ahead === 0 && aside === 0 && (i > chosen) === (dx + dy > 0);
      if (!here && (ahead <= 0 || aside > ahead)) continue;
      const far = ahead * ahead + 4 * aside * aside + (here ? Math.abs(i - chosen) * 1e-9 : 0);
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const first = (places) => places.find(seen) ?? -1;
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const every = Array.from({ length: count }, (_, i) => i);
    if (event.key in ARROWS) choose(chosen < 0 || !seen(chosen) ? first(every) : step(...ARROWS[event.key]));
    else if (event.key === "Home") choose(first(every));
    else if (event.key === "End") choose(first(every.reverse()));
    else if (event.key === "n" || event.key === "N") {
      const after = mistakes.filter((i) => i > chosen);
      choose(first([...after, ...mistakes]));
    } else return;
    event.preventDefault();
  });
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    choose(nearest(event.clientX - box.left, event.clientY - box.top, event.pointerType === "touch" ? 40 : 16));
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);

  const legend = document.getElementById("legend");
  const signs = [];
  const groups = [...told.coloured];
  if (told.truth.some((c) => !place.has(c))) groups.push(-1);
  for (const c of groups) {
    const button = make("button");
    const sign = make("canvas");
    sign.width = sign.height = 28;
    sign.setAttribute("aria-hidden", "true");
    signs.push([sign.getContext("2d"), c]);
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.title = "Show or hide";
    button.append(sign, make("bdi", c < 0 ? "other classes" : told.classes[c], "class"));
    button.addEventListener("click", () => {
      if (!hidden.delete(c)) hidden.add(c);
      button.setAttribute("aria-pressed", String(!hidden.has(c)));
      redraw();
    });
    legend.append(button);
  }
  for (const input of document.querySelectorAll("input[name=layout]")) {
    input.addEventListener("change", () => {
      layout = told.layouts[+input.value];
      arrange();
      for (const about of document.querySelectorAll("[data-layout]")) {
        about.hidden = about.dataset.layout !== input.value;
        about.id = about.hidden ? "" : "map-about";
      }
      redraw();
    });
  }
  new ResizeObserver(redraw).observe(canvas);
  function paint() {
    for (const [to, c] of signs) {
      to.clearRect(0, 0, 28, 28);
      to.fillStyle = colour(c);
      mark(to, 14, 14, 9, shape(c));
      to.fill();
    }
    draw();
  }
  for (const media of [dark, matchMedia("print")]) media.addEventListener("change", paint);
  // What is folded away on the screen is printed.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const each of folded) each.open = true;
    paint();
  });
  addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
    paint();
  });
  paint();
  choose(mistakes.length ? mistakes[0] : count ? 0 : -1);
})();
