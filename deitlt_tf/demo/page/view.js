// The evaluation view in the browser, with the same numbers as deitlt_tf.data.augment.evaluation_view.
//
// The short side becomes `resize`, the aspect ratio stays, then the central `size` x `size` is cut out. resize 0: the
// whole image becomes size x size. Bicubic, antialiased where it shrinks. Source: TensorFlow's ScaleAndTranslate with kernel keyscubic (scale_and_translate_op.cc).

const RADIUS = 2; // of the kernel, in pixels of the larger grid
const STRIP_PIXELS = 4e6; // of the source, read from the canvas at a time

const float32 = Math.fround;

function keysCubic(x) {
  if (x >= 2) return 0;
  if (x >= 1) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return (1.5 * x - 2.5) * x * x + 1;
}

export function roundHalfEven(x) {
  const floor = Math.floor(x);
  return x - floor === 0.5 ? floor + (floor % 2 && 1) : Math.round(x);
}

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/** For each of `to` pixels, {start, weights}: the pixels among `from`, of which it is the weighted mean. */
function spans(from, to, scale, translation) {
  const inverse = float32(1 / scale);
  const shift = float32(-inverse * translation);
  const stretch = Math.max(inverse, 1);
  return Array.from({ length: to }, (_, x) => {
    const centre = float32((x + 0.5) * inverse + shift);
    const start = clamp(Math.ceil(centre - RADIUS * stretch - 0.5), 0, from - 1);
    const end = clamp(Math.floor(centre + RADIUS * stretch - 0.5), 0, from - 1) + 1;
    const weights = Float64Array.from({ length: end - start }, (_, i) =>
      keysCubic(Math.abs(start + i + 0.5 - centre) / stretch));
    const total = weights.reduce((a, b) => a + b, 0);
    return { start, weights: weights.map((w) => w / total) };
  });
}

/** The spans of both axes of an image of width x height. */
function spansOf(width, height, size, resize) {
  const short = Math.min(width, height);
  const [columns, rows] = [width, height].map((side) => {
    const resized = resize ? Math.floor((resize * side) / short) : size;
    const offset = resize ? roundHalfEven((resized - size) / 2) : 0;
    return spans(side, size, float32(resized / side), -offset);
  });
  return { columns, rows };
}

const first = (axis) => axis.reduce((least, { start }) => Math.min(least, start), Infinity);
const last = (axis) => axis.reduce((most, { start, weights }) => Math.max(most, start + weights.length), 0);

/**
 * Pixels uint8 [size, size, 3] of an ImageBitmap. Only pixels that the crop depends on are read, in strips, so that a
 * large photograph needs little more memory than the bitmap itself.
 */
export function evaluationView(bitmap, { size, resize }) {
  const { columns, rows } = spansOf(bitmap.width, bitmap.height, size, resize);
  const [left, top] = [first(columns), first(rows)];
  const [width, bottom] = [last(columns) - left, last(rows)];
  const step = clamp(Math.floor(STRIP_PIXELS / width), 1, bottom - top);
  const context = new OffscreenCanvas(width, step).getContext("2d", { willReadFrequently: true });

  const total = new Float64Array(size * size * 3);
  const line = new Float64Array(size * 3); // one row of the source, resized
  for (let strip = top; strip < bottom; strip += step) {
    const height = Math.min(step, bottom - strip);
    context.clearRect(0, 0, width, height);
    context.drawImage(bitmap, left, strip, width, height, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height).data;
    for (let y = strip; y < strip + height; y++) {
      const users = rows.filter((span) => span.start <= y && y < span.start + span.weights.length);
      if (!users.length) continue;
      resizeRow(pixels, (y - strip) * width - left, columns, line);
      for (const span of users) {
        const weight = span.weights[y - span.start];
        const at = rows.indexOf(span) * size * 3;
        for (let i = 0; i < line.length; i++) total[at + i] += weight * line[i];
      }
    }
  }
  return Uint8Array.from(total, (x) => clamp(roundHalfEven(x), 0, 255));
}

/** RGBA pixels from number `offset` on -> RGB of each span of columns, into `line`. */
function resizeRow(pixels, offset, columns, line) {
  columns.forEach(({ start, weights }, x) => {
    let [red, green, blue] = [0, 0, 0];
    for (let i = 0, at = 4 * (offset + start); i < weights.length; i++, at += 4) {
      red += weights[i] * pixels[at];
      green += weights[i] * pixels[at + 1];
      blue += weights[i] * pixels[at + 2];
    }
    line[3 * x] = red;
    line[3 * x + 1] = green;
    line[3 * x + 2] = blue;
  });
}

const PNG = 0x89504e47, RIFF = 0x52494646, WEBP = 0x57454250, EXIF = 0x45584946, PNG_EXIF = 0x65584966;

/**
 * A JPEG without its EXIF and ICC segments, a PNG or WebP without its EXIF chunk; other files unchanged. Training ignores
 * them, so the browser must not rotate a photograph or change its colours either.
 */
export async function plainImage(file) {
  const bytes = new DataView(await file.arrayBuffer());
  if (bytes.byteLength < 16) return file;
  if (bytes.getUint16(0) === 0xffd8) return plainJpeg(file, bytes);
  if (bytes.getUint32(0) === PNG) return plainPng(file, bytes);
  if (bytes.getUint32(0) === RIFF && bytes.getUint32(8) === WEBP) return plainWebp(bytes);
  return file;
}

function plainPng(file, bytes) {
  const parts = [file.slice(0, 8)];
  let at = 8;
  // A chunk is length, kind, content, checksum.
  while (at + 12 <= bytes.byteLength) {
    const end = at + 12 + bytes.getUint32(at);
    if (bytes.getUint32(at + 4) !== PNG_EXIF) parts.push(file.slice(at, end));
    at = end;
  }
  return new Blob(parts, { type: "image/png" });
}

function plainWebp(bytes) {
  let at = 12;
  // A chunk is kind, length (little-endian), content, padded to an even length. Decoders skip a kind that they do not know.
  while (at + 8 <= bytes.byteLength) {
    const length = bytes.getUint32(at + 4, true);
    if (bytes.getUint32(at) === EXIF) bytes.setUint32(at, 0);
    at += 8 + length + (length % 2);
  }
  return new Blob([bytes], { type: "image/webp" });
}

function plainJpeg(file, bytes) {
  const parts = [file.slice(0, 2)];
  let at = 2;
  // A segment is 0xFF, kind, length, content; the kind 0xDA begins the compressed picture.
  while (at + 4 <= bytes.byteLength && bytes.getUint8(at) === 0xff && bytes.getUint8(at + 1) !== 0xda) {
    const kind = bytes.getUint8(at + 1);
    if (kind === 0xff) {  // any number of these may stand before a kind
      at += 1;
      continue;
    }
    const end = at + 2 + bytes.getUint16(at + 2);
    if (kind !== 0xe1 && kind !== 0xe2) parts.push(file.slice(at, end));
    at = end;
  }
  return new Blob([...parts, file.slice(at)], { type: "image/jpeg" });
}
