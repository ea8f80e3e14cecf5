// The map of the images.
{
  // Colours of Okabe & Ito, suitable for colour vision deficiency; the shapes need no colour at all.
  const LIGHT_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7500", "#7a6ff0"];
  const DARK_COLOURS = ["#4aa8e8", "#f0b429", "#2fc79a", "#e59ac3", "#9fd4f5", "#ff8a4a", "#cdb93a", "#a9a1ff"];
  const SHAPES = ["disc", "square", "triangle", "diamond"];
  const OTHER_COLOUR = "#8b939c";
  const darkScheme = matchMedia("screen and (prefers-color-scheme: dark)");
  const canvas = document.getElementById("map");
  const context = canvas.getContext("2d");
  const previewImage = document.getElementById("preview-image");
  const previewText = document.getElementById("preview-text");
  const colourIndex = new Map(data.colouredClasses.map((c, index) => [c, index]));
  const hiddenGroups = new Set();
  const allImages = Array.from({ length: count }, (_, i) => i);
  const errors = allImages.filter(isError);
  let projection = data.projections[0];
  let selected = -1;
  const x = new Float64Array(count); // positions in CSS pixels
  const y = new Float64Array(count);
  // A group is a coloured class, or -1 for all other classes.
  const groupOf = (i) => (colourIndex.has(data.trueClass[i]) ? data.trueClass[i] : -1);
  const isVisible = (i) => !hiddenGroups.has(groupOf(i));
  const shapeOf = (group) => (colourIndex.has(group) ? SHAPES[colourIndex.get(group) % SHAPES.length] : "disc");
  function colourOf(group) {
    if (!colourIndex.has(group)) return OTHER_COLOUR;
    return (darkScheme.matches ? DARK_COLOURS : LIGHT_COLOURS)[colourIndex.get(group)];
  }

  function updatePositions() {
    const [width, height] = [canvas.clientWidth - 20, canvas.clientHeight - 20];
    for (let i = 0; i < count; i++) {
      x[i] = (projection.x[i] / 1000) * width + 10;
      y[i] = (1 - projection.y[i] / 1000) * height + 10;
    }
  }

  function tracePath(target, centerX, centerY, size, shape) {
    target.beginPath();
    if (shape === "square") target.rect(centerX - size * 0.88, centerY - size * 0.88, size * 1.76, size * 1.76);
    else if (shape === "triangle") {
      target.moveTo(centerX, centerY - size * 1.2);
      target.lineTo(centerX + size * 1.1, centerY + size * 0.8);
      target.lineTo(centerX - size * 1.1, centerY + size * 0.8);
      target.closePath();
    } else if (shape === "diamond") {
      target.moveTo(centerX, centerY - size * 1.3);
      target.lineTo(centerX + size * 1.3, centerY);
      target.lineTo(centerX, centerY + size * 1.3);
      target.lineTo(centerX - size * 1.3, centerY);
      target.closePath();
    } else target.arc(centerX, centerY, size, 0, 2 * Math.PI);
  }

  function draw() {
    updatePositions();
    const scale = Math.min(3, window.devicePixelRatio || 1);
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const size = count > 4000 ? 2 : count > 800 ? 2.8 : 4;
    context.globalAlpha = count > 800 ? 0.6 : 0.8;
    for (let i = 0; i < count; i++) {
      if (!isVisible(i)) continue;
      context.fillStyle = colourOf(data.trueClass[i]);
      tracePath(context, x[i], y[i], size, shapeOf(data.trueClass[i]));
      context.fill();
    }
    context.globalAlpha = 1;
    const isCrowded = errors.length > 300;
    context.lineWidth = isCrowded ? 1.2 : 1.8;
    for (const i of errors) {
      if (!isVisible(i)) continue;
      context.strokeStyle = colourOf(data.trueClass[i]);
      tracePath(context, x[i], y[i], size + (isCrowded ? 2 : 4.5), "disc");
      context.stroke();
    }
    if (selected >= 0) {
      context.strokeStyle = getComputedStyle(canvas).color;
      context.lineWidth = 2.5;
      tracePath(context, x[selected], y[selected], size + 8, "disc");
      context.stroke();
    }
  }

  let isDrawScheduled = false;
  function scheduleDraw() {
    if (isDrawScheduled) return;
    isDrawScheduled = true;
    requestAnimationFrame(() => {
      isDrawScheduled = false;
      draw();
    });
  }

  function select(i) {
    if (i < 0 || i === selected) return;
    selected = i;
    canvas.dataset.selected = i;
    previewImage.replaceChildren(createImage(i, true));
    const path = createElement("bdi", data.paths[i], "path");
    const parts = [createElement("strong", describe(i)), createElement("bdi", probabilities(i)), path];
    previewText.replaceChildren(...parts.flatMap((part) => [part, createElement("br")]));
    scheduleDraw();
  }

  function nearestTo(pointX, pointY, radius) {
    let nearest = -1;
    let smallest = radius * radius;
    for (let i = 0; i < count; i++) {
      if (!isVisible(i)) continue;
      const distance = (x[i] - pointX) ** 2 + (y[i] - pointY) ** 2;
      if (distance <= smallest) [nearest, smallest] = [i, distance];
    }
    return nearest;
  }

  // The nearest image within 45 degrees of a direction. Images at the very same position follow in their order, so that
  // the arrow keys reach each of them.
  function neighbourTowards(dx, dy) {
    let nearest = -1;
    let smallest = Infinity;
    for (let i = 0; i < count; i++) {
      if (i === selected || !isVisible(i)) continue;
      const [offsetX, offsetY] = [x[i] - x[selected], y[i] - y[selected]];
      const forward = offsetX * dx + offsetY * dy;
      const sideways = Math.abs(offsetX * dy) + Math.abs(offsetY * dx);
      const isSamePosition = forward === 0 && sideways === 0 && i > selected === dx + dy > 0;
      if (!isSamePosition && (forward <= 0 || sideways > forward)) continue;
      const tieBreak = isSamePosition ? Math.abs(i - selected) * 1e-9 : 0;
      const distance = forward * forward + 4 * sideways * sideways + tieBreak;
      if (distance < smallest) [nearest, smallest] = [i, distance];
    }
    return nearest;
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const firstVisible = (images) => images.find(isVisible) ?? -1;
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) {
      const hasStart = selected >= 0 && isVisible(selected);
      select(hasStart ? neighbourTowards(...ARROWS[event.key]) : firstVisible(allImages));
    } else if (event.key === "Home") select(firstVisible(allImages));
    else if (event.key === "End") select(firstVisible([...allImages].reverse()));
    else if (event.key === "n" || event.key === "N") {
      const following = errors.filter((i) => i > selected);
      select(firstVisible([...following, ...errors]));
    } else return;
    event.preventDefault();
  });

  function selectAtPointer(event) {
    const bounds = canvas.getBoundingClientRect();
    const radius = event.pointerType === "touch" ? 40 : 16;
    select(nearestTo(event.clientX - bounds.left, event.clientY - bounds.top, radius));
  }
  canvas.addEventListener("pointermove", selectAtPointer);
  canvas.addEventListener("pointerdown", selectAtPointer);

  const legend = document.getElementById("legend");
  const legendMarkers = [];
  const groups = [...data.colouredClasses];
  if (data.trueClass.some((c) => !colourIndex.has(c))) groups.push(-1);
  for (const group of groups) {
    const button = createElement("button");
    const marker = createElement("canvas");
    marker.width = marker.height = 28;
    marker.setAttribute("aria-hidden", "true");
    legendMarkers.push([marker.getContext("2d"), group]);
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.title = "Show or hide";
    button.append(marker, createElement("bdi", group < 0 ? "other classes" : data.classNames[group], "class"));
    button.addEventListener("click", () => {
      if (!hiddenGroups.delete(group)) hiddenGroups.add(group);
      button.setAttribute("aria-pressed", String(!hiddenGroups.has(group)));
      scheduleDraw();
    });
    legend.append(button);
  }

  for (const input of document.querySelectorAll("input[name=projection]")) {
    input.addEventListener("change", () => {
      projection = data.projections[+input.value];
      updatePositions();
      for (const description of document.querySelectorAll("[data-projection]")) {
        description.hidden = description.dataset.projection !== input.value;
        description.id = description.hidden ? "" : "map-description";
      }
      scheduleDraw();
    });
  }
  new ResizeObserver(scheduleDraw).observe(canvas);

  function drawAll() {
    for (const [target, group] of legendMarkers) {
      target.clearRect(0, 0, 28, 28);
      target.fillStyle = colourOf(group);
      tracePath(target, 14, 14, 9, shapeOf(group));
      target.fill();
    }
    draw();
  }
  for (const query of [darkScheme, matchMedia("print")]) query.addEventListener("change", drawAll);

  drawAll();
  select(errors.length ? errors[0] : count ? 0 : -1);
  for (const event of ["beforeprint", "afterprint"]) addEventListener(event, drawAll);
}
