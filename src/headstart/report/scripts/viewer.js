// The viewer: one image of a gallery, enlarged. The page defines createImage(i, decorative) and describeImage(i), which
// returns a title and lines of text.
const viewer = document.getElementById("viewer");
const viewerMapButton = document.getElementById("viewer-map");
const activationMaps = new Map();
for (const stack of document.querySelectorAll("[data-map-of]")) activationMaps.set(+stack.dataset.mapOf, stack);
let viewerImages = [];
let viewerPosition = 0;
let viewerShowsMap = true;

function showInViewer() {
  const i = viewerImages[viewerPosition];
  const map = activationMaps.get(i);
  const stage = document.getElementById("viewer-stage");
  if (map && viewerShowsMap) {
    const stack = createElement("span", undefined, "stack");
    for (const image of map.querySelectorAll("img")) {
      const copy = image.cloneNode();
      copy.alt = "";
      stack.append(copy);
    }
    stage.replaceChildren(stack);
  } else stage.replaceChildren(createImage(i, true));
  viewerMapButton.hidden = !map;
  viewerMapButton.setAttribute("aria-pressed", String(viewerShowsMap));
  const { title, lines } = describeImage(i);
  document.getElementById("viewer-title").textContent = title;
  document.getElementById("viewer-text").replaceChildren(...lines.map((line) => createElement("bdi", line)));
  document.getElementById("viewer-position").textContent = `${viewerPosition + 1} of ${viewerImages.length}`;
  document.getElementById("viewer-previous").disabled = viewerPosition === 0;
  document.getElementById("viewer-next").disabled = viewerPosition === viewerImages.length - 1;
}

function moveInViewer(position) {
  const place = Math.max(0, Math.min(viewerImages.length - 1, position));
  if (place === viewerPosition) return;
  viewerPosition = place;
  showInViewer();
}

// A card may stand for several images, those of one scene, which follow each other.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.enlarge");
  if (!button) return;
  const gallery = button.closest("[data-gallery]");
  viewerImages = [];
  for (const other of gallery.querySelectorAll("button.enlarge")) {
    if (other === button) viewerPosition = viewerImages.length;
    viewerImages.push(...(other.dataset.members || other.dataset.image).split(",").map(Number));
  }
  showInViewer();
  viewer.showModal();
});
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowRight") moveInViewer(viewerPosition + 1);
  else if (event.key === "ArrowLeft") moveInViewer(viewerPosition - 1);
  else if (event.key === "Home") moveInViewer(0);
  else if (event.key === "End") moveInViewer(viewerImages.length - 1);
  else if ((event.key === "m" || event.key === "M") && !viewerMapButton.hidden) viewerMapButton.click();
  else return;
  event.preventDefault();
});
document.getElementById("viewer-previous").addEventListener("click", () => moveInViewer(viewerPosition - 1));
document.getElementById("viewer-next").addEventListener("click", () => moveInViewer(viewerPosition + 1));
document.getElementById("viewer-close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
viewerMapButton.addEventListener("click", () => {
  viewerShowsMap = !viewerShowsMap;
  showInViewer();
});
