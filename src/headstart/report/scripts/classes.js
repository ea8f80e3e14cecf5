// Images of one class: what is said of each, the cells of the confusion matrix, and the search by class.
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

const captionOf = probabilities;

function describeImage(i) {
  const lines = [`Probabilities: ${probabilities(i)}`, data.setLabels[data.setIndex[i]], data.paths[i]];
  return { title: describe(i), lines };
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
  const total = cellCount(button);
  const isPartial = images.length < total && button.closest(".matrix");
  const number = isPartial ? `${images.length} of ${total}` : `${images.length}`;
  const noun = (isPartial ? total : images.length) === 1 ? "image" : "images";
  const verdict = isCorrect ? "classified correctly" : `taken for ${className(predictedClass)}`;
  const title = `${className(trueClass)} ${verdict} (${data.setLabels[set]}): ${number} ${noun}`;
  const order = isCorrect ? ", least sure first" : ", surest first";
  openDialog(images.length > 1 ? title + order : title, images);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-true]");
  if (button) openCell(button);
});

addOptions("true", data.trueClass, className);
addOptions("predicted", data.predictedClass, className);
makeSearch((i, wanted) =>
  [["true", data.trueClass], ["predicted", data.predictedClass]].every(
    ([name, column]) => wanted[name] === undefined || column[i] === +wanted[name],
  ),
);
