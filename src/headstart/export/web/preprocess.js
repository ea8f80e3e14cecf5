// Image file to the pixels that the model takes: decoding by the browser, crop and resize as Pillow does them.
// Licence: Apache-2.0, as Headstart.

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight(x) {  // Keys 1981, a = -0.5
      x = Math.abs(x);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
};

/** Decode an image file (a Blob) to {width, height, data: RGBA bytes}: EXIF orientation applied, on white. */
export async function decode(file) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  return fromBitmap(await createImageBitmap(file, options));
}

/** The pixels of a bitmap, or of a video element and its size. */
export function fromBitmap(bitmap, width = bitmap.width, height = bitmap.height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

/** Crop and resize a decoded image to RGB bytes [height * width * 3]; settings are `preprocess` of about.json. */
export function preprocess(image, settings) {
  const { height, width, resize, crop } = settings;
  let boxHeight = image.height * crop, boxWidth = image.width * crop;
  if (resize !== "squash") {
    const scale = Math.min(image.height / height, image.width / width) * crop;
    boxHeight = height * scale;
    boxWidth = width * scale;
  }
  const filter = FILTERS[settings.interpolation];
  const rows = weights(image.height, boxHeight, height, filter);
  const columns = weights(image.width, boxWidth, width, filter);
  const first = Math.min(...rows.map((row) => row.start));
  const last = Math.max(...rows.map((row) => row.start + row.weights.length));
  const narrow = new Uint8Array((last - first) * width * 3);
  for (let y = first; y < last; y++) {
    for (let x = 0; x < width; x++) {
      const { start, weights } = columns[x];
      let r = 0.5, g = 0.5, b = 0.5;
      for (let i = 0, at = (y * image.width + start) * 4; i < weights.length; i++, at += 4) {
        r += weights[i] * image.data[at];
        g += weights[i] * image.data[at + 1];
        b += weights[i] * image.data[at + 2];
      }
      narrow.set([level(r), level(g), level(b)], ((y - first) * width + x) * 3);
    }
  }
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const { start, weights } = rows[y];
    for (let at = 0; at < width * 3; at++) {
      let sum = 0.5;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * narrow[(start - first + i) * width * 3 + at];
      pixels[y * width * 3 + at] = level(sum);
    }
  }
  return pixels;
}

function level(value) {
  return Math.max(0, Math.min(255, Math.floor(value)));
}

/** For each output pixel the first input pixel and the weights: the filter, widened where the image is made smaller. */
function weights(size, box, out, filter) {
  const start = Math.max(0, (size - box) / 2);
  const scale = (Math.min(size, start + box) - start) / out;
  const widening = Math.max(scale, 1), support = filter.support * widening;
  return Array.from({ length: out }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(centre - support + 0.5));
    const high = Math.min(size, Math.trunc(centre + support + 0.5));
    const values = Array.from({ length: high - low }, (_, j) => filter.weight((low + j + 0.5 - centre) / widening));
    const sum = values.reduce((a, b) => a + b, 0);
    return { start: low, weights: values.map((value) => value / sum) };
  });
}
