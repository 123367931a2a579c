"use strict";
// Paint a defect. Examples, model and runtime are in this page; nothing is loaded or sent.

const SIZE = 256, AREA = SIZE * SIZE; // of images, maps and masks
const COLOURS = { truePositive: [0, 158, 115], falsePositive: [213, 94, 0], falseNegative: [86, 180, 233] };
// Ready-made defects: lines through points around the pointer and their width, in brush sizes; opacity.
const STAMPS = {
  scratch: { width: 0.4, alpha: 1, lines: [[[-3, 0.5], [0, 0], [3, -0.7]], [[-1.5, 1.2], [2, 0.4]]] },
  crack: { width: 0.5, alpha: 1, lines: [[[-2.5, 0], [-1.2, 0.7], [-0.3, -0.3], [0.7, 0.7], [2.5, 0.3]], [[-0.3, -0.3], [0, -1.8]]] },
  spots: { width: 0.9, alpha: 1, lines: [[[0, 0]], [[1.5, 0.6]], [[-0.8, 1.4]], [[0.4, -1.5]]] },
  stain: { width: 2.5, alpha: 0.6, lines: [[[-0.7, 0], [0.4, 0.3], [0.9, -0.3]]] },
};
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const facts = JSON.parse($("facts").textContent);
const context = (canvas) => canvas.getContext("2d", { willReadFrequently: true });
const stamp = () => STAMPS[document.querySelector("[name=tool]:checked").id]; // none with brush and eraser
const layer = () => context(Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE }));
const pixelsOf = (drawn) => drawn.getImageData(0, 0, SIZE, SIZE);
const base = layer(), paint = layer(), joined = layer();
// image, change: how many images were chosen and how many changes made, so that a late prediction is told from the latest.
const state = { image: 0, change: 0, truth: null, map: null, threshold: 0, history: [], cursor: null, last: null };
const engine = { worker: null, ready: false, busy: false, stale: false, failed: "" };

/** The code of the worker, which runs the model. */
function workerMain() {
  let ort, session;
  onmessage = async ({ data }) => {
    try {
      if (data.model) {
        // The worker makes the address of the bundle itself: on file:// one that the page made is refused.
        ort = await import(URL.createObjectURL(new Blob([data.runtime], { type: "text/javascript" })));
        ort.env.wasm.wasmBinary = data.wasm;
        ort.env.wasm.numThreads = 1; // no SharedArrayBuffer on file://
        session = await ort.InferenceSession.create(data.model, { executionProviders: ["wasm"] });
        postMessage({ ready: true });
      } else {
        const begin = performance.now();
        const images = new ort.Tensor("float32", data.pixels, [1, 3, data.size, data.size]);
        const outputs = await session.run({ images });
        const [map, reconstruction] = [outputs.anomaly_map.data, outputs.reconstruction.data];
        postMessage({ map, reconstruction, image: data.image, change: data.change, ms: performance.now() - begin });
      }
    } catch (error) {
      postMessage({ error: String(error?.message ?? error) });
    }
  };
}

/** The bytes of a payload: gzip, as base64. */
async function unpack(text) {
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function startEngine() {
  try {
    const source = URL.createObjectURL(new Blob([`(${workerMain})()`], { type: "text/javascript" }));
    engine.worker = new Worker(source); // a classic one: module workers fail silently on file://
    engine.worker.onmessage = ({ data }) => receive(data);
    engine.worker.onerror = (event) => giveUp(event.message || "its worker does not start");
    const names = ["runtime", "wasm", "model"];
    const parts = await Promise.all(names.map((name) => unpack($(name).textContent)));
    engine.worker.postMessage(Object.fromEntries(names.map((name, i) => [name, parts[i]])), parts.map((p) => p.buffer));
  } catch (error) {
    giveUp(String(error?.message ?? error));
  }
}

function giveUp(reason) {
  Object.assign(engine, { ready: false, failed: reason });
  say(`The model does not run in this browser (${reason}). The examples have their stored predictions.`, true);
}

function receive(message) {
  if (message.error) return giveUp(message.error);
  if (message.ready) engine.ready = true;
  engine.busy = false;
  if (message.map && message.image === state.image) {
    Object.assign(state, { map: message.map, reconstruction: message.reconstruction });
    fill("reconstruction", (i) => [0, 1, 2].map((c) => (message.reconstruction[c * AREA + i] + 1) * 127.5));
    drawResults();
    say(`Computed in this browser in ${Math.round(message.ms)} ms.`);
    document.body.dataset.current = String(message.change === state.change);
  }
  if (message.ready || engine.stale) predict();
}

/** Ask for the prediction of what is on the canvas; while one is computed, only the latest request is kept. */
function predict() {
  if (!engine.ready || engine.busy) return void (engine.stale = true);
  Object.assign(engine, { busy: true, stale: false });
  const rgba = compose().data, pixels = new Float32Array(3 * AREA);
  for (let i = 0; i < AREA; i++) for (let c = 0; c < 3; c++) pixels[c * AREA + i] = rgba[4 * i + c] / 127.5 - 1;
  engine.worker.postMessage({ pixels, size: SIZE, image: state.image, change: state.change }, [pixels.buffer]);
}

/** The image with what was painted on it, as the model sees it. */
function compose() {
  joined.drawImage(base.canvas, 0, 0);
  joined.drawImage(paint.canvas, 0, 0);
  return pixelsOf(joined);
}

function drawImage() {
  const target = context($("image"));
  target.putImageData(compose(), 0, 0);
  for (const [colour, width] of state.cursor ? [["#000", 4], ["#fff", 2]] : []) { // seen on any product
    target.beginPath();
    target.arc(state.cursor.x, state.cursor.y, Math.max(2, $("size").value / 2), 0, 7);
    Object.assign(target, { strokeStyle: colour, lineWidth: width });
    target.stroke();
  }
}

/** Fill a canvas pixel by pixel with `colour(i) -> [r, g, b]`. */
function fill(id, colour) {
  const picture = new ImageData(SIZE, SIZE);
  for (let i = 0; i < AREA; i++) {
    [picture.data[4 * i], picture.data[4 * i + 1], picture.data[4 * i + 2]] = colour(i);
    picture.data[4 * i + 3] = 255;
  }
  context($(id)).putImageData(picture, 0, 0);
}

/** Map, mask, verdict and numbers, from the latest map and the slider. What was painted counts as defective. */
function drawResults() {
  const { map, threshold, truth } = state, rgba = compose().data, painted = pixelsOf(paint).data;
  let marked = 0, both = 0, either = 0, score = 0;
  fill("map", (i) => {
    const place = Math.min(map[i] / (2 * facts.threshold), 1) * 4, low = Math.min(Math.floor(place), 3);
    return HEAT[low].map((v, c) => v + (place - low) * (HEAT[low + 1][c] - v));
  });
  fill("mask", (i) => {
    const predicted = map[i] > threshold, wanted = Boolean(truth) && (truth[i] > 0 || painted[4 * i + 3] > 127);
    score = Math.max(score, map[i]);
    marked += predicted;
    both += predicted && wanted;
    either += predicted || wanted;
    const grey = (0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]) / 2 + 60;
    if (!predicted && !wanted) return [grey, grey, grey];
    const kind = predicted ? (wanted ? "truePositive" : "falsePositive") : "falseNegative";
    const striped = kind === "truePositive" && (Math.floor(i / SIZE) + (i % SIZE)) % 12 < 4;
    return COLOURS[kind].map((v) => (striped ? 127 + 0.375 * v : 0.75 * v + grey / 4));
  });
  $("verdict").textContent = $("verdict").className = score > facts.image_threshold ? "defective" : "good";
  $("score").textContent = `${score.toFixed(3)} (defective above ${facts.image_threshold.toFixed(3)})`;
  $("marked").textContent = `${((100 * marked) / AREA).toFixed(1)} %`;
  $("iou").textContent = truth && either ? `${((100 * both) / either).toFixed(1)} %` : "–";
}

const say = (text, wrong = false) => Object.assign($("status"), { textContent: text, className: wrong ? "wrong" : "" });

/** Keep the paint layer for undo, before it changes. */
const remember = () => (state.history = [...state.history, pixelsOf(paint)].slice(-40));

function stroke(from, to) {
  Object.assign(paint, { lineCap: "round", lineWidth: $("size").value, strokeStyle: $("colour").value });
  paint.globalCompositeOperation = $("eraser").checked ? "destination-out" : "source-over"; // erased: the image shows again
  paint.beginPath();
  paint.moveTo(from.x, from.y);
  paint.lineTo(to.x + 0.01, to.y); // a line of no length draws no dot
  paint.stroke();
  changed();
}

/** Apply the chosen tool at a place: a stamp, turned from one time to the next, or a dot. */
function apply(at) {
  remember();
  const defect = stamp();
  if (!defect) return stroke(at, at);
  paint.save();
  paint.translate(at.x, at.y);
  paint.rotate(state.change);
  Object.assign(paint, { lineCap: "round", lineJoin: "round", lineWidth: defect.width * $("size").value });
  Object.assign(paint, { strokeStyle: $("colour").value, globalAlpha: defect.alpha, globalCompositeOperation: "source-over" });
  for (const line of defect.lines) {
    const points = line.map((point) => point.map((v) => v * $("size").value));
    paint.beginPath();
    paint.moveTo(points[0][0] + 0.01, points[0][1]); // a line of no length draws no dot
    points.forEach(([x, y]) => paint.lineTo(x, y));
    paint.stroke();
  }
  paint.restore();
  changed();
}

function changed() {
  state.change += 1;
  document.body.dataset.current = "false";
  $("undo").disabled = $("clear").disabled = !state.history.length;
  drawImage();
  predict();
  if (engine.failed) giveUp(engine.failed);
}

function undo() {
  if (!state.history.length) return;
  paint.putImageData(state.history.pop(), 0, 0);
  changed();
}

/** Begin with another image; its truth and stored map where they are known. */
function show(drawable, truth = null, map = null) {
  paint.clearRect(0, 0, SIZE, SIZE);
  base.drawImage(drawable, 0, 0, SIZE, SIZE);
  Object.assign(state, { image: state.image + 1, history: [], truth, map });
  for (const id of ["reconstruction", "map", "mask"]) context($(id)).clearRect(0, 0, SIZE, SIZE);
  for (const id of ["verdict", "score", "marked", "iou"]) $(id).textContent = "–";
  if (map) drawResults();
  changed();
}

function decode(address) {
  const picture = Object.assign(new Image(), { src: address });
  return picture.decode().then(() => picture);
}

async function chooseExample(index) {
  const example = facts.examples[index], drawn = layer();
  const addresses = [all("#examples img")[index].src, example.reconstruction, example.truth];
  const [image, reconstruction, mask] = await Promise.all(addresses.map(decode));
  drawn.drawImage(mask, 0, 0);
  const truth = pixelsOf(drawn).data.filter((_, i) => i % 4 === 0);
  const map = Float32Array.from(new Uint16Array((await unpack(example.map)).buffer), (v) => (v * example.score) / 65535);
  all("#examples button").forEach((button, i) => button.setAttribute("aria-pressed", String(i === index)));
  show(image, truth, map); // the stored prediction, until the model has run
  context($("reconstruction")).drawImage(reconstruction, 0, 0);
}

async function chooseFile(file) {
  if (!file) return;
  try {
    const bitmap = await createImageBitmap(file, { resizeWidth: SIZE, resizeHeight: SIZE, resizeQuality: "high" });
    all("#examples button").forEach((button) => button.setAttribute("aria-pressed", "false"));
    show(bitmap);
  } catch {
    say(`${file.name} is no image that this browser can read; choose a PNG, JPEG or WebP file.`, true);
  }
}

function place(event) {
  const box = $("image").getBoundingClientRect();
  return { x: ((event.clientX - box.left) * SIZE) / box.width, y: ((event.clientY - box.top) * SIZE) / box.height };
}

function pressed(event) {
  const step = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4], " ": [0, 0] }[event.key];
  if (!step || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const from = state.cursor ?? { x: SIZE / 2, y: SIZE / 2 }, inside = (v) => Math.min(SIZE, Math.max(0, v));
  state.cursor = { x: inside(from.x + step[0]), y: inside(from.y + step[1]) };
  if (event.key === " ") return apply(state.cursor);
  if (!event.shiftKey) return drawImage();
  remember();
  stroke(from, state.cursor);
}

Object.assign($("image"), {
  onkeydown: pressed,
  onblur: () => ((state.cursor = null), drawImage()),
  onpointerdown: (event) => {
    if (event.button) return;
    $("image").setPointerCapture(event.pointerId);
    Object.assign(state, { cursor: null, last: stamp() ? null : place(event) });
    apply(place(event));
  },
  onpointermove: (event) => state.last && (stroke(state.last, place(event)), (state.last = place(event))),
  onlostpointercapture: () => (state.last = null),
});
addEventListener("keydown", (event) => (event.ctrlKey || event.metaKey) && event.key === "z" && undo());
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => (event.preventDefault(), chooseFile(event.dataTransfer.files[0])));
$("undo").onclick = undo;
$("clear").onclick = () => (remember(), paint.clearRect(0, 0, SIZE, SIZE), changed());
$("file").onchange = () => (chooseFile($("file").files[0]), ($("file").value = ""));
$("threshold").oninput = () => {
  state.threshold = facts.threshold * 10 ** ($("threshold").value / 50);
  $("threshold-value").textContent = state.threshold.toFixed(3);
  if (state.map) drawResults();
};
$("threshold").oninput();
all("#examples button").forEach((button, i) => (button.onclick = () => chooseExample(i)));
if (facts.examples.length) chooseExample(0);
startEngine();
