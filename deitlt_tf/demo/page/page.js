// The page: it takes an image, sends it to worker.js and shows the answer. All texts are set as text, never as markup.

import { overlay, picture } from "./pictures.js";
import { answersByRank, sureRow } from "./ranks.js";

const TOP = 5;
const ROLES = {
  cls: ["CLS", "learnt from the labels"],
  dist: ["DIST", "learnt from the teacher"],
  mean: ["mean", "mean of the logits, (CLS + DIST) / 2"],
};

const by = (id) => document.getElementById(id);
const body = document.body.classList;
const facts = await fetch("facts.json").then((response) => response.json());
const worker = new Worker("worker.js", { type: "module" });
let latest = { id: 0, file: null }; // the newest image: answers to earlier ones are not shown

/** A new element with attributes and children. A child is an element or a text. */
function make(tag, attributes, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

// ---- input: an image

/** {width, height} of an image file. Only its header is read, because browsers decode pixels when they draw them. */
function sizeOf(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  return new Promise((resolve, reject) => {
    image.onload = () => resolve({ width: image.naturalWidth, height: image.naturalHeight });
    image.onerror = reject;
    image.src = url;
  }).finally(() => URL.revokeObjectURL(url));
}

async function take(file) {
  const id = latest.id + 1;
  latest = { id, file };
  by("mistake").hidden = true;
  if (!file) {
    mistake("That was not a file: save the picture first, then drop, choose or paste the file.");
    return;
  }
  body.add("busy");
  by("status").textContent = `Classifying ${file.name} …`;
  let size;
  try {
    size = await sizeOf(file);
  } catch {
    if (id === latest.id) unreadable(file);
    return;
  }
  if (id !== latest.id) return;
  const pixels = size.width * size.height;
  if (!pixels) return unreadable(file);
  if (pixels > facts.max_pixels) {
    const [has, limit] = [pixels, facts.max_pixels].map((n) => `${+(n / 1e6).toFixed(1)}`);
    mistake(`“${file.name}” has ${has} megapixels, more than the ${limit} that this page takes: make it smaller first.`);
    return;
  }
  worker.postMessage({ id, file });
}

worker.onmessage = ({ data }) => {
  if (data.failed) mistake(`The network cannot run in this browser (${data.failed}).`);
  else if (data.id !== latest.id) return;
  else if (data.unreadable) unreadable(latest.file);
  else show(latest.file, data);
};
worker.onerror = () => mistake("The network cannot run in this browser (its script did not start).");

function unreadable(file) {
  mistake(`“${file.name}” is not an image that this browser can read: use a JPEG, PNG, WebP or BMP file.`);
}

function mistake(sentence) {
  body.remove("busy", "answered");
  by("answer").hidden = true;
  by("status").textContent = "";
  by("mistake").textContent = sentence;
  by("mistake").hidden = false;
}

by("file").addEventListener("change", ({ target }) => {
  if (target.files.length) take(target.files[0]);
  target.value = ""; // so that choosing the same file again is a change too
});
document.addEventListener("paste", ({ clipboardData }) => take(clipboardData.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    body.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}

// ---- output: the answer

function softmax(logits) {
  const highest = logits.reduce((a, b) => Math.max(a, b)); // Math.max(...logits) fails for 120,000 classes
  const powers = Array.from(logits, (z) => Math.exp(z - highest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** The TOP most probable classes of one head, best first: [{index, name, probability, count, group}]. */
function topClasses(probabilities) {
  return probabilities
    .map((probability, index) => ({ probability, index }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, TOP)
    .map(({ probability, index }) => ({
      index, probability,
      name: facts.class_names[index], count: facts.class_counts?.[index], group: facts.groups?.[index],
    }));
}

const percent = (p) => (p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);
const images = (count) => `${count.toLocaleString("en")} training image${count === 1 ? "" : "s"}`;
/** "tail, 5 training images"; without the group where the classes are about equally frequent. */
const described = ({ count, group }) => (count === undefined ? "" : [group, images(count)].filter(Boolean).join(", "));
const named = (top) => (top.count === undefined ? top.name : `${top.name} (${described(top)})`);

function panel(head, classes) {
  const [title, role] = facts.heads.length > 1 ? ROLES[head] : ["most probable classes", ""];
  return make("section", {}, make("h3", {}, title), make("p", {}, role), make("ol", {}, ...classes.map(row)));
}

function row({ name, probability, count, group }) {
  const bar = make("div", {});
  bar.style.width = `${100 * probability}%`;
  const lines = [
    make("div", { className: "first" }, make("span", {}, name),
      make("data", { value: probability }, percent(probability))),
    make("div", { className: "bar", ariaHidden: "true" }, bar),
  ];
  if (count !== undefined) {
    const parts = group ? [make("b", {}, group), ` · ${images(count)}`] : [images(count)];
    lines.push(make("div", { className: "count" }, ...parts));
  }
  return make("li", { className: group || "none" }, ...lines);
}

function experts({ cls, dist }) {
  if (!dist) return described(cls[0]);
  const [one, other] = [cls[0], dist[0]];
  if (one.index === other.index) return `This is the answer of the mean. CLS and DIST both answer ${named(one)}.`;
  return `This is the answer of the mean. CLS answers ${named(one)}, DIST answers ${named(other)}.`;
}

function figure(canvas, title, alt) {
  canvas.role = "img";
  canvas.ariaLabel = alt;
  return make("figure", {}, canvas, make("figcaption", {}, title));
}

/** The input of the network and, for a transformer, a map for each token of where it looks. */
function pictures(pixels, rollout, name) {
  const size = facts.image_size;
  const figures = [figure(picture(pixels, size), `network input, ${size}\u00a0px`, `evaluation view of ${name}`)];
  if (rollout) {
    const [, tokens, grid] = rollout.dims;
    for (let t = 0; t < tokens; t++) {
      const heat = rollout.data.subarray(t * grid * grid, (t + 1) * grid * grid);
      const [title] = Object.values(ROLES)[t];
      figures.push(figure(overlay(pixels, size, heat, grid), `where ${title} looks`, `attention rollout of ${title}`));
    }
  }
  return figures;
}

// ---- output: ranks of the taxonomy, where there is one

let byRank = null; // what answersByRank has returned for the image that is shown

function showRanks() {
  const { rows, leastRisk } = byRank;
  const threshold = Number(by("threshold").value);
  const at = sureRow(rows, threshold);
  by("from").textContent = percent(threshold);
  by("sure").textContent = at < 0
    ? `No rank is sure: ${rows.at(-1).name} has ${percent(rows.at(-1).probability)} only.`
    : `${rows[at].name} (${rows[at].rank}), ${percent(rows[at].probability)}`;
  by("by-rank").replaceChildren(...rows.map((row, i) => rankRow(row, i === at)));
  by("risk").textContent = `The class with the smallest risk of a severe mistake: ${leastRisk}.`;
}

function rankRow({ rank, name, probability }, sure) {
  const bar = make("div", {});
  bar.style.width = `${100 * probability}%`;
  const line = make("div", { className: "first" }, make("span", {}, `${rank}: ${name}`),
    make("data", { value: probability }, percent(probability)));
  const item = make("li", { className: sure ? "sure" : "none" }, line, make("div", { className: "bar", ariaHidden: "true" }, bar));
  if (sure) item.ariaCurrent = "true";
  return item;
}

by("threshold").addEventListener("input", showRanks);

function show(file, { pixels, outputs }) {
  const top = {};
  const probabilities = {};
  for (const head of facts.heads) {
    probabilities[head] = softmax(outputs[`logits_${head}`].data);
    top[head] = topClasses(probabilities[head]);
  }
  const [best] = top.mean ?? top.cls;
  if (facts.taxonomy) {
    byRank = answersByRank(probabilities.mean ?? probabilities.cls, facts.taxonomy);
    showRanks();
    by("ranks").hidden = false;
  }
  by("verdict").textContent = `${best.name}, ${percent(best.probability)}`;
  by("experts").textContent = experts(top);
  by("heads").replaceChildren(...facts.heads.map((head) => panel(head, top[head])));
  by("pictures").replaceChildren(...pictures(pixels, outputs.rollout, file.name));
  const answer = make("span", { className: "spoken" }, `: ${by("verdict").textContent}`);
  by("status").replaceChildren(file.name, answer);
  by("answer").hidden = false;
  body.remove("busy");
  body.add("answered");
}

// ---- facts that are shown before any image

by("run").textContent = document.title = facts.run;
by("model").textContent = facts.model;
if (facts.taxonomy) by("threshold").value = facts.threshold;
by("notes").replaceChildren(...facts.notes.map((note) => make("p", {}, note)));
