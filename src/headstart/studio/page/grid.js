// The grid: thousands of thumbnails, of which only those in sight are elements; selecting by pointer and keys.

import { button, byId, count, make, percent, plural } from "../shared/dom.js";
import { FILTERS, LABEL_FILTERS, ORDERS } from "./filters.js";
import { chipsOf, labelHint, spokenLabels, stateOf, toggle } from "./labels.js";
import { className, imageUrl, isSeveral, nameOf, store, tell } from "./store.js";

const GAP = 8,
  CAPTION = 22,
  CHIPS = 46,
  ROWS_AROUND = 3,
  DOUBLE_CLICK = 500; // ms
const [grid, tiles] = [byId("grid"), byId("tiles")];
/**
 * What is shown: the class, pair of classes and kind of image; rows are in the order of the grid. held: ids of images
 * that are being labelled; keeps: whether rows has images whose place the filter alone would not give them.
 */
export const view = {
  rows: [],
  selected: new Set(),
  held: new Set(),
  keeps: false,
  cursor: 0,
  anchor: 0,
  label: "",
  state: "present",
  predicted: "",
  show: "all",
  text: "",
};
const elements = new Map(); // by position in view.rows
let layout = { columns: 1, size: 128, height: 158 },
  onSelect = () => {},
  onOpen = () => {};

/**
 * Choose and order the images anew; the selection keeps what is still there. Of several labels, an image that is
 * being labelled keeps its place, and one that is selected stays, until the user moves: the next key is for it as well.
 */
export function applyFilter() {
  const text = view.text.trim().toLowerCase();
  const current = view.rows[view.cursor]?.id;
  const index = (name) => store.state.classes.findIndex((entry) => entry.name === name);
  if ([view.label, view.predicted].some((name) => name && index(name) < 0)) view.label = view.predicted = ""; // renamed
  const [label, predicted] = [view.label, view.predicted].map((name) => (name ? index(name) : null));
  const filters = isSeveral() ? LABEL_FILTERS : FILTERS;
  const has = (row) => (isSeveral() ? stateOf(row, label) === view.state : row.label === label);
  const fits = (row) =>
    filters[view.show](row) &&
    (label === null || has(row)) &&
    (predicted === null || row.predicted === predicted) &&
    (!text || row.name.toLowerCase().includes(text));
  const kept = isSeveral() ? placesKept(fits) : new Map();
  let rows = store.rows.filter((row) => !kept.has(row.id) && fits(row));
  if (ORDERS[view.show]) rows.sort(ORDERS[view.show]);
  if (kept.size) rows = withKept(rows, kept);
  view.keeps = kept.size > 0;
  view.rows = rows;
  const ids = new Set(rows.map((row) => row.id));
  view.selected = new Set([...view.selected].filter((id) => ids.has(id)));
  const place = rows.findIndex((row) => row.id === current);
  view.cursor = place >= 0 ? place : Math.max(0, Math.min(view.cursor, rows.length - 1));
  view.anchor = Math.min(view.anchor, Math.max(0, rows.length - 1));
  byId("filter-count").textContent =
    rows.length === store.rows.length
      ? plural(rows.length, "image")
      : `${count(rows.length)} of ${plural(store.rows.length, "image")}`;
  draw();
}

/** The places of images that stay where they are shown, by id. */
function placesKept(fits) {
  const places = new Map();
  if (!view.selected.size && !view.held.size) return places;
  view.rows.forEach(({ id }, place) => {
    const row = store.rowOf.get(id);
    if (row && (view.held.has(id) || (view.selected.has(id) && !fits(row)))) places.set(id, place);
  });
  return places;
}

/** The rows with those that keep their places, which are in ascending order. */
function withKept(rows, kept) {
  const all = [],
    others = rows.values();
  for (const [id, place] of kept) {
    while (all.length < place) {
      const { value, done } = others.next();
      if (done) break;
      all.push(value);
    }
    all.push(store.rowOf.get(id));
  }
  return [...all, ...others];
}

/** Keep images in the grid, in their places, until the user moves; returns their ids. */
export function hold(ids) {
  if (isSeveral()) for (const id of ids) view.held.add(id);
  return ids;
}

/** Images go that kept their places and are neither selected nor being labelled any more. */
export function letGo() {
  if (!view.keeps) return;
  const anchored = view.rows[view.anchor]?.id;
  applyFilter();
  const place = view.rows.findIndex((row) => row.id === anchored);
  view.anchor = place >= 0 ? place : view.cursor;
}

function letGoAfterClick() {
  letGo();
  onSelect();
}

/** Show other images: any of label, state (of the label), predicted, show, text. */
export function show(filter) {
  Object.assign(view, { label: "", state: "present", predicted: "", show: "all", text: "" }, filter);
  view.selected.clear();
  view.held.clear();
  view.cursor = view.anchor = grid.scrollTop = 0;
  view.rows = []; // else the cursor would stay with its image, which may come to lie out of sight
  byId("filter-show").value = view.show;
  byId("filter-text").value = view.text;
  applyFilter();
  onSelect();
}

function measure() {
  const width = grid.clientWidth - 2 * GAP;
  const wanted = width < 500 ? 104 : 128;
  const columns = Math.max(2, Math.floor((width + GAP) / (wanted + GAP)));
  const size = Math.max(40, Math.floor((width - GAP * (columns - 1)) / columns));
  layout = { columns, size, height: size + (isSeveral() ? CHIPS : CAPTION) + GAP };
}

let frame = 0;
/** Draw in the next frame. */
export function draw() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    render();
  });
}

function render() {
  measure();
  const { columns, height, size } = layout,
    total = view.rows.length;
  tiles.style.height = `${Math.ceil(total / columns) * height + GAP}px`;
  const first = Math.max(0, Math.floor(grid.scrollTop / height) - ROWS_AROUND) * columns;
  const last = Math.min(total, (Math.ceil((grid.scrollTop + grid.clientHeight) / height) + ROWS_AROUND) * columns);
  const free = [];
  for (const [position, element] of elements) {
    if (position >= first && position < last) continue;
    elements.delete(position);
    free.push(element);
  }
  for (let position = first; position < last; position++) {
    let element = elements.get(position);
    if (!element) {
      element = free.pop() ?? createTile();
      elements.set(position, element);
    }
    fill(element, position);
    element.style.width = `${size}px`;
    const left = GAP + (position % columns) * (size + GAP);
    const top = GAP + Math.floor(position / columns) * height;
    element.style.transform = `translate(${left}px, ${top}px)`;
  }
  for (const element of free) element.remove();
  const has = elements.get(view.cursor);
  if (has && total) grid.setAttribute("aria-activedescendant", has.id);
  else grid.removeAttribute("aria-activedescendant");
}

function createTile() {
  const picture = make("img", { alt: "", decoding: "async", draggable: false });
  picture.addEventListener("error", () => picture.classList.add("broken"));
  const tile = make(
    "div",
    { role: "option", className: "tile" },
    picture,
    make("span", { className: "hint", "aria-hidden": "true" }),
    make("span", { className: "caption" }),
    make("span", { className: "visually-hidden" }),
  );
  tiles.append(tile);
  return tile;
}

/** What a screen reader hears of an image after its class. */
function describe(row) {
  const parts = [row.name];
  if (row.status === "embedding") parts.push("being read");
  if (row.status === "failed") parts.push("could not be read");
  if (isSeveral()) {
    const hint = labelHint(row);
    if (hint) parts.push(`${row.issues.length ? "looks wrong" : "predicted"}: ${hint}`);
    return `, ${parts.join(", ")}`;
  }
  if (row.suspicion > 0) parts.push(`label issue: ${nameOf(row.predicted)} is more likely`);
  else if (row.predicted !== null && row.predicted !== row.label) parts.push(`predicted ${nameOf(row.predicted)}`);
  return `, ${parts.join(", ")}`;
}

function fill(tile, position) {
  const row = view.rows[position],
    [picture, hint, caption, heard] = tile.children;
  const isSelected = view.selected.has(row.id);
  tile.id = `tile-${position}`;
  tile.dataset.position = position;
  tile.classList.toggle("cursor", position === view.cursor);
  tile.classList.toggle("issue", row.suspicion > 0);
  tile.classList.toggle("pending", row.status === "embedding");
  tile.setAttribute("aria-selected", String(isSelected));
  tile.setAttribute("aria-posinset", position + 1);
  tile.setAttribute("aria-setsize", view.rows.length);
  if (tile.dataset.id !== row.id) {
    tile.dataset.id = row.id;
    picture.classList.remove("broken");
    picture.src = imageUrl(row.id);
  }
  showCaption(caption, row);
  heard.textContent = describe(row);
  tile.title = row.name;
  const says =
    row.status === "failed"
      ? "not readable"
      : isSeveral()
        ? labelHint(row)
      : row.suspicion > 0
        ? `${nameOf(row.predicted)}?`
        : view.show === "uncertain" && row.probability !== null
          ? `${nameOf(row.predicted)} ${percent(row.probability)}`
          : row.predicted !== null && row.predicted !== row.label
            ? row.label < 0 ? `${nameOf(row.predicted)}?` : `taken for ${nameOf(row.predicted)}`
            : "";
  hint.textContent = says;
  hint.hidden = !says;
}

function showCaption(caption, row) {
  if (!isSeveral()) {
    caption.textContent = className(row) || "no class";
    return;
  }
  const key = JSON.stringify([row.labels, row.unknown, store.state.classes.map(({ name }) => name)]);
  if (caption.dataset.key === key) return;
  caption.dataset.key = key;
  caption.classList.add("chips-line");
  const chips = make("span", { "aria-hidden": "true" }, ...chipsOf(row));
  caption.replaceChildren(chips, make("span", { className: "visually-hidden" }, spokenLabels(row)));
}

/** The ids that a change is for: the selected images, else the one at the cursor. */
export function targets() {
  if (view.selected.size) return view.rows.filter((row) => view.selected.has(row.id)).map((row) => row.id);
  const row = view.rows[view.cursor];
  return row ? [row.id] : [];
}

/**
 * The ids of `targets`, where one of them is in sight. Else, as after scrolling by the wheel, none: the grid goes back
 * to them, so that nothing is labelled that the user does not see.
 */
export function targetsInSight() {
  measure();
  const ids = targets();
  const wanted = new Set(ids),
    places = view.rows.flatMap(({ id }, place) => (wanted.has(id) ? [place] : []));
  if (!places.length || places.some(isInSight)) return ids;
  if (!wanted.has(view.rows[view.cursor]?.id)) view.cursor = places[0];
  reveal();
  tell(`${ids.length > 1 ? "The selected images were" : "The image was"} out of sight. Do it again to change what you see now.`);
  return [];
}

/** Whether most of a tile can be seen. */
function isInSight(place) {
  const top = GAP + Math.floor(place / layout.columns) * layout.height - grid.scrollTop,
    seen = Math.min(top + layout.height, grid.clientHeight) - Math.max(top, 0);
  return seen >= 0.75 * Math.min(layout.height, grid.clientHeight);
}

/**
 * Move to a position; `extend` selects all from the anchor to it, `toggle` adds or removes it. After a click images do
 * not yet go that kept their places: the second click of two is for the same image.
 */
export function moveTo(position, { extend = false, toggle = false, byPointer = false } = {}) {
  if (!view.rows.length) return;
  view.cursor = Math.max(0, Math.min(view.rows.length - 1, position));
  const id = view.rows[view.cursor].id;
  if (extend) {
    const [from, to] = [Math.min(view.anchor, view.cursor), Math.max(view.anchor, view.cursor)];
    view.selected = new Set(view.rows.slice(from, to + 1).map((row) => row.id));
  } else {
    view.anchor = view.cursor;
    if (!toggle) view.selected = new Set([id]);
    else if (!view.selected.delete(id)) view.selected.add(id);
  }
  view.held.clear();
  if (byPointer && view.keeps) setTimeout(letGoAfterClick, DOUBLE_CLICK);
  else letGo();
  reveal();
  onSelect();
}

/** Go to an image by its id, whatever the filter is. */
export function goTo(id) {
  if (!view.rows.some((row) => row.id === id)) show({});
  moveTo(view.rows.findIndex((row) => row.id === id));
  grid.focus();
}

/** A small image that leads to it in the grid. */
export function thumbnail(id, text) {
  const made = button("", () => goTo(id), { className: "thumbnail", "aria-label": text, title: text });
  made.append(make("img", { src: imageUrl(id), alt: "", loading: "lazy" }));
  return made;
}

function reveal() {
  measure();
  const top = Math.floor(view.cursor / layout.columns) * layout.height;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + layout.height + GAP > grid.scrollTop + grid.clientHeight)
    grid.scrollTop = top + layout.height + GAP - grid.clientHeight;
  draw();
}

/** After a change of one image: on to the next, which has taken its place where the filter no longer shows it. */
export function advance(ids) {
  if (ids.length !== 1) return;
  const isHere = view.rows[view.cursor]?.id === ids[0];
  if (isSeveral() && !isHere) return; // the user has moved on meanwhile
  if (isSeveral() && view.cursor === view.rows.length - 1) {
    view.held.clear(); // of the last image nothing else lets go
    clearSelection();
    moveTo(view.cursor);
  } else moveTo(view.cursor + (isHere ? 1 : 0));
}

export function selectAll() {
  view.selected = new Set(view.rows.map((row) => row.id));
  draw();
  onSelect();
}

export function clearSelection() {
  view.selected.clear();
  letGo();
  draw();
  onSelect();
}

/** A key that moves or selects; returns whether it did. */
export function moveByKey(event) {
  const page = Math.max(1, Math.floor(grid.clientHeight / layout.height)) * layout.columns;
  const steps = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: layout.columns,
    ArrowUp: -layout.columns,
    PageDown: page,
    PageUp: -page,
    Home: -view.cursor,
    End: view.rows.length - 1 - view.cursor,
  };
  if (!(event.key in steps)) return false;
  const isFirst = !view.selected.size && view.cursor === 0 && steps[event.key] > 0 && !event.shiftKey;
  moveTo(isFirst ? 0 : view.cursor + steps[event.key], { extend: event.shiftKey });
  return true;
}

/** Connect the grid: `select` is told of every selection, `open` opens an image. */
export function startGrid(select, open) {
  [onSelect, onOpen] = [select, open];
  grid.addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(draw).observe(grid);
  let touch = false;
  grid.addEventListener("pointerdown", (event) => {
    touch = event.pointerType === "touch";
  });
  grid.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const chip = event.target.closest(".chip");
    if (chip && !event.shiftKey && !event.ctrlKey && !event.metaKey) {
      toggle(hold([tile.dataset.id]), chip.dataset.label);
      return;
    }
    const isToggling = event.ctrlKey || event.metaKey || touch;
    moveTo(Number(tile.dataset.position), { extend: event.shiftKey, toggle: isToggling, byPointer: true });
    grid.focus({ preventScroll: true });
  });
  grid.addEventListener("dblclick", (event) => event.target.closest(".tile") && onOpen());
  grid.addEventListener("mousedown", (event) => event.shiftKey && event.preventDefault()); // no text is selected
}
