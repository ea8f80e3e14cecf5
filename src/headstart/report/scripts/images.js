// The images of the report: cards, the dialog of a cell of a matrix, and the search. The page defines isError(i),
// captionOf(i), a line of text, and describeImage(i), which returns a title and lines of text.
const data = JSON.parse(document.getElementById("report-data").textContent);
const count = data.paths.length;
const sprite = document.getElementById("sprite");
const CARDS_PER_PAGE = 120;
const FOUND_PER_PAGE = 24;

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
  caption.append(createElement("bdi", captionOf(i), "confidence"), createElement("bdi", data.paths[i], "path"));
  card.append(button, caption);
  return card;
}

// A cell of a matrix opens its images in a dialog.
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

moreButton.addEventListener("click", showMore);
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

// The number that a cell of a matrix shows, of all images, also those that are not in the report.
function cellCount(button) {
  return Number(button.textContent.replace(/[^0-9]/g, "").slice(0, 12));
}

// The search. isWanted(i, wanted) looks at the values of the fields of the page, by name; those that every page has, the
// file name, the set and errors, are looked at here.
function makeSearch(isWanted) {
  const found = document.getElementById("found");
  const foundMore = document.getElementById("find-more");
  const foundCount = document.getElementById("find-count");
  const form = document.getElementById("filters");
  const hint = foundCount.textContent;
  let rest = [];

  const showFound = () => {
    appendCards(found, rest.slice(0, FOUND_PER_PAGE));
    rest = rest.slice(FOUND_PER_PAGE);
    foundMore.hidden = !rest.length;
    foundMore.textContent = `Show ${Math.min(FOUND_PER_PAGE, rest.length)} more`;
  };

  const search = () => {
    const wanted = {};
    for (const field of form.elements) {
      const value = field.type === "checkbox" ? field.checked : field.value.trim();
      if (value) wanted[field.id.replace("filter-", "")] = value;
    }
    found.replaceChildren();
    rest = [];
    foundMore.hidden = true;
    if (!Object.keys(wanted).length) {
      foundCount.textContent = hint;
      return;
    }
    const text = (wanted.text || "").toLowerCase();
    for (let i = 0; i < count; i++) {
      if (text && !data.paths[i].toLowerCase().includes(text)) continue;
      if (wanted.errors && !isError(i)) continue;
      if (wanted.set && data.setIndex[i] !== +wanted.set) continue;
      if (isWanted(i, wanted)) rest.push(i);
    }
    const noun = rest.length === 1 ? "image" : "images";
    foundCount.textContent = `${rest.length.toLocaleString("en")} of ${count.toLocaleString("en")} ${noun} found.`;
    showFound();
  };
  onNewValues(form, search);
  form.addEventListener("submit", (event) => event.preventDefault());
  foundMore.addEventListener("click", showFound);
}

// Offer numbers of classes or labels, with their names, in a field of the search.
function addOptions(field, numbers, name) {
  for (const c of [...new Set(numbers)].sort((a, b) => a - b)) {
    const option = createElement("option", name(c));
    option.value = c;
    document.getElementById(`filter-${field}`).append(option);
  }
}
