// The images of the report: cards, the dialog of a cell of the confusion matrix, and the search.
const data = JSON.parse(document.getElementById("report-data").textContent);
const count = data.paths.length;
const sprite = document.getElementById("sprite");
const CARDS_PER_PAGE = 120;
const FOUND_PER_PAGE = 24;
const isError = (i) => data.trueClass[i] !== data.predictedClass[i];
const className = (c) => data.classNames[c];

function describe(i) {
  const verdict = isError(i) ? `taken for ${className(data.predictedClass[i])}` : "classified correctly";
  return `${className(data.trueClass[i])}, ${verdict}`;
}

// Each percentage stands beside the class whose probability it is.
function probabilities(i) {
  const first = `${className(data.predictedClass[i])} ${data.confidence[i].toFixed(1)}%`;
  return `${first}, ${className(data.secondClass[i])} ${data.secondConfidence[i].toFixed(1)}%`;
}

function describeImage(i) {
  const lines = [`Probabilities: ${probabilities(i)}`, data.setLabels[data.setIndex[i]], data.paths[i]];
  return { title: describe(i), lines };
}

// An image: its thumbnail if the page has one, else its tile of the sprite sheet.
const thumbnailUrls = new Map();
for (const image of document.querySelectorAll("img[data-index]")) thumbnailUrls.set(+image.dataset.index, image.src);

function createImage(i, decorative) {
  if (thumbnailUrls.has(i)) {
    const image = createElement("img");
    image.src = thumbnailUrls.get(i);
    image.alt = decorative ? "" : data.paths[i];
    return image;
  }
  const tile = createElement("canvas");
  const side = data.tileSide;
  tile.width = tile.height = side;
  if (decorative) tile.setAttribute("aria-hidden", "true");
  else {
    tile.setAttribute("role", "img");
    tile.setAttribute("aria-label", data.paths[i]);
  }
  const drawTile = () => {
    const left = (i % data.spriteColumns) * side;
    const top = Math.floor(i / data.spriteColumns) * side;
    tile.getContext("2d").drawImage(sprite, left, top, side, side, 0, 0, side, side);
  };
  if (sprite && sprite.complete && sprite.naturalWidth) drawTile();
  else if (sprite) sprite.addEventListener("load", drawTile, { once: true });
  return tile;
}
for (const copy of document.querySelectorAll("[data-copy-of]")) copy.append(createImage(+copy.dataset.copyOf, true));

function createCard(i) {
  const card = createElement("figure", undefined, isError(i) ? "card error" : "card");
  const button = createButton(undefined, "enlarge");
  button.dataset.image = i;
  button.append(createImage(i, true));
  button.setAttribute("aria-label", `Enlarge ${data.paths[i]}`);
  const caption = createElement("figcaption");
  caption.append(createElement("bdi", probabilities(i), "confidence"), createElement("bdi", data.paths[i], "path"));
  card.append(button, caption);
  return card;
}

// A cell of the confusion matrix opens its images in a dialog.
const dialog = document.getElementById("image-dialog");
const cards = document.getElementById("dialog-cards");
const moreButton = document.getElementById("more");
let remaining = [];

function openDialog(title, images) {
  document.getElementById("dialog-title").textContent = title;
  cards.replaceChildren();
  remaining = images;
  showMore();
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function appendCards(target, images) {
  const firstNew = target.children.length;
  target.append(...images.map(createCard));
  if (firstNew && target.children[firstNew]) target.children[firstNew].querySelector("button").focus();
}

function showMore() {
  appendCards(cards, remaining.slice(0, CARDS_PER_PAGE));
  remaining = remaining.slice(CARDS_PER_PAGE);
  moreButton.hidden = !remaining.length;
  moreButton.textContent = `Show more (${remaining.length.toLocaleString("en")} left)`;
}

function openCell(button) {
  const [trueClass, predictedClass] = [+button.dataset.true, +button.dataset.predicted];
  const set = +button.closest("[data-set]").dataset.set;
  const isCorrect = trueClass === predictedClass;
  const images = [];
  for (let i = 0; i < count; i++) {
    const isInCell = data.trueClass[i] === trueClass && data.predictedClass[i] === predictedClass;
    if (isInCell && data.setIndex[i] === set) images.push(i);
  }
  const byConfidence = (a, b) => data.confidence[a] - data.confidence[b];
  images.sort((a, b) => (isCorrect ? byConfidence(a, b) : byConfidence(b, a)));
  const total = Number(button.textContent.replace(/[^0-9]/g, "").slice(0, 12));
  const isPartial = images.length < total && button.closest(".matrix");
  const number = isPartial ? `${images.length} of ${total}` : `${images.length}`;
  const noun = (isPartial ? total : images.length) === 1 ? "image" : "images";
  const verdict = isCorrect ? "classified correctly" : `taken for ${className(predictedClass)}`;
  const title = `${className(trueClass)} ${verdict} (${data.setLabels[set]}): ${number} ${noun}`;
  const order = isCorrect ? ", least sure first" : ", surest first";
  openDialog(images.length > 1 ? title + order : title, images);
}

moreButton.addEventListener("click", showMore);
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-true]");
  if (button) openCell(button);
});

// The search.
{
  const field = (name) => document.getElementById(`filter-${name}`);
  const found = document.getElementById("found");
  const foundMore = document.getElementById("find-more");
  const foundCount = document.getElementById("find-count");
  const hint = foundCount.textContent;
  let rest = [];

  for (const [name, column] of [["true", data.trueClass], ["predicted", data.predictedClass]]) {
    for (const c of [...new Set(column)].sort((a, b) => a - b)) {
      const option = createElement("option", className(c));
      option.value = c;
      field(name).append(option);
    }
  }

  const showFound = () => {
    appendCards(found, rest.slice(0, FOUND_PER_PAGE));
    rest = rest.slice(FOUND_PER_PAGE);
    foundMore.hidden = !rest.length;
    foundMore.textContent = `Show ${Math.min(FOUND_PER_PAGE, rest.length)} more`;
  };

  const search = () => {
    const text = field("text").value.trim().toLowerCase();
    const value = (name) => (field(name) ? field(name).value : "");
    const onlyErrors = field("errors").checked;
    found.replaceChildren();
    rest = [];
    foundMore.hidden = true;
    if (!text && !value("true") && !value("predicted") && !value("set") && !onlyErrors) {
      foundCount.textContent = hint;
      return;
    }
    const columns = [["true", data.trueClass], ["predicted", data.predictedClass], ["set", data.setIndex]];
    const chosen = columns.filter(([name]) => value(name) !== "").map(([name, column]) => [+value(name), column]);
    for (let i = 0; i < count; i++) {
      if (text && !data.paths[i].toLowerCase().includes(text)) continue;
      if (onlyErrors && !isError(i)) continue;
      if (chosen.every(([wanted, column]) => column[i] === wanted)) rest.push(i);
    }
    const noun = rest.length === 1 ? "image" : "images";
    foundCount.textContent = `${rest.length.toLocaleString("en")} of ${count.toLocaleString("en")} ${noun} found.`;
    showFound();
  };
  onNewValues(document.getElementById("filters"), search);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  foundMore.addEventListener("click", showFound);
}
