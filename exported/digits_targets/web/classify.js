// Classifies an image in the page: onnxruntime-web runs ../model.onnx. Nothing leaves the machine.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

const LABELS = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const [WIDTH, HEIGHT, CHANNELS] = [8, 8, 1];
const RUNS = 10; // per latency shown: a browser's clock is coarse

const $ = (id) => document.getElementById(id);
const canvas = $("seen").getContext("2d", { willReadFrequently: true });
ort.env.wasm.numThreads = 1;
let turn = 0; // counts what was asked for: only the last is answered
let camera = null; // what it sends, while it is on

function show(label, probability = "", latency = "") {
  $("label").value = label;
  $("probability").value = probability;
  $("latency").value = latency;
}

/** Say what went wrong; no answer of before is left. */
function fail(error) {
  next();
  show(error.message);
  delete $("label").dataset.values;
  canvas.clearRect(0, 0, WIDTH, HEIGHT);
}

/** End what is going on; return the turn of what comes next. */
function next() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = $("video").srcObject = null;
  $("camera").textContent = "Use the camera";
  return ++turn;
}

/** Crop to the centre and resize, as in training; black is 0.0, white 16.0. */
function pixels(image) {
  const [width, height] = [image.videoWidth ?? image.width, image.videoHeight ?? image.height];
  const scale = Math.min(width / WIDTH, height / HEIGHT);
  const [w, h] = [WIDTH * scale, HEIGHT * scale];
  canvas.fillStyle = "white"; // under what is transparent
  canvas.fillRect(0, 0, WIDTH, HEIGHT);
  canvas.imageSmoothingQuality = "high";
  canvas.drawImage(image, (width - w) / 2, (height - h) / 2, w, h, 0, 0, WIDTH, HEIGHT);
  const { data } = canvas.getImageData(0, 0, WIDTH, HEIGHT); // red, green, blue, alpha
  const values = new Float64Array(WIDTH * HEIGHT * CHANNELS);
  for (let i = 0; i < WIDTH * HEIGHT; i++) {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3);
    const seen = CHANNELS === 1 ? [(19595 * r + 38470 * g + 7471 * b + 32768) >> 16] : [r, g, b]; // grey as in Pillow
    seen.forEach((value, c) => (values[i * CHANNELS + c] = (value / 255) * 16.0 + 0.0));
  }
  return values;
}

function tensor(values) {
  const steps = values;
  const one = Float32Array.from(steps);
  const all = new one.constructor(1 * one.length).fill(0);
  all.set(one);
  return new ort.Tensor("float32", all, [1, 8, 8, 1]);
}

async function classify(session, image, asked) {
  if (asked !== turn) return;
  const feeds = { ["image"]: tensor(pixels(image)) };
  let found = await session.run(feeds, ["probabilities"]); // the first run is slow
  const start = performance.now();
  for (let run = 0; run < RUNS; run++) found = await session.run(feeds, ["probabilities"]);
  const ms = (performance.now() - start) / RUNS;
  if (asked !== turn) return;
  const raw = Array.from(found["probabilities"].data.slice(0, LABELS.length));
  const values = raw;
  $("label").dataset.values = JSON.stringify(values);
  const best = values.indexOf(Math.max(...values));
  show(LABELS[best], `${(100 * values[best]).toFixed(2)} %`, `${ms.toFixed(2)} ms`);
}

async function film(session, asked) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  if (asked !== turn) return stream.getTracks().forEach((track) => track.stop());
  camera = stream;
  $("camera").textContent = "Stop the camera";
  $("video").srcObject = stream;
  await $("video").play();
  while (asked === turn) {
    await classify(session, $("video"), asked);
    await new Promise(requestAnimationFrame);
  }
}

async function open(session, file, asked) {
  const image = await createImageBitmap(file).catch((error) => { throw new Error(`${file.name}: not an image that can be read. ${error.message}`); });
  await classify(session, image, asked);
}

async function main() {
  const session = await ort.InferenceSession.create("../model.onnx", { executionProviders: ["wasm"] });
  const begin = (work, asked = next()) => work(asked).catch((error) => asked === turn && fail(error));
  const choose = (file) => file && begin((asked) => open(session, file, asked));
  $("file").onclick = () => ($("file").value = ""); // the same file may be chosen again
  $("file").onchange = () => choose($("file").files[0]);
  $("drop").ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
  $("drop").ondragleave = () => $("drop").classList.remove("over");
  $("drop").ondrop = (event) => { event.preventDefault(); $("drop").classList.remove("over"); choose(event.dataTransfer.files[0]); };
  $("camera").onclick = () => (camera ? next() : begin((asked) => film(session, asked)));
  show("Ready");
  document.body.dataset.ready = "yes";
}

main().catch(fail);
