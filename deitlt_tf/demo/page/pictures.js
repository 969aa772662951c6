// Canvases: a picture, and a picture with the attention of a token over it.

const SMALL = 64; // pictures up to this side show their pixels as squares
const LEAST = 256; // smallest side of an overlay
// matplotlib's viridis at every eighth of its range
const VIRIDIS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];

/** A new square canvas. colour(x, y) -> [red, green, blue] of each pixel. */
function draw(side, colour) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    image.data.set(colour(i % side, Math.floor(i / side)), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const pixelAt = (pixels, size, x, y) => pixels.subarray(3 * (y * size + x), 3 * (y * size + x) + 3);

/** A canvas of pixels, uint8 [size, size, 3]. */
export function picture(pixels, size) {
  const canvas = draw(size, (x, y) => pixelAt(pixels, size, x, y));
  canvas.classList.toggle("small", size <= SMALL);
  return canvas;
}

/** Half the picture, half `heat` [grid, grid]; violet is the lowest value of `heat`, yellow the highest. */
export function overlay(pixels, size, heat, grid) {
  const low = heat.reduce((a, b) => Math.min(a, b));
  const range = Math.max(heat.reduce((a, b) => Math.max(a, b)) - low, 1e-12);
  const side = Math.max(size, LEAST);
  return draw(side, (x, y) => {
    const under = pixelAt(pixels, size, Math.floor((x * size) / side), Math.floor((y * size) / side));
    const over = viridis((bilinear(heat, grid, (x + 0.5) / side, (y + 0.5) / side) - low) / range);
    return over.map((value, channel) => (value + under[channel]) / 2);
  });
}

/** heat at (x, y), both 0..1. Centres of cells are at 0.5 / grid, ...; outside them the nearest value holds. */
function bilinear(heat, grid, x, y) {
  const [column, right] = neighbours(x, grid);
  const [line, below] = neighbours(y, grid);
  const at = (i, j) => heat[Math.min(i, grid - 1) * grid + Math.min(j, grid - 1)];
  const upper = at(line, column) * (1 - right) + at(line, column + 1) * right;
  const lower = at(line + 1, column) * (1 - right) + at(line + 1, column + 1) * right;
  return upper * (1 - below) + lower * below;
}

function neighbours(x, grid) {
  const place = Math.min(Math.max(x * grid - 0.5, 0), grid - 1);
  return [Math.floor(place), place % 1];
}

function viridis(x) {
  const place = Math.min(Math.max(x, 0), 1) * (VIRIDIS.length - 1);
  const [low, high] = [VIRIDIS[Math.floor(place)], VIRIDIS[Math.ceil(place)]];
  return low.map((value, channel) => value + (high[channel] - value) * (place % 1));
}
