// The graph of accepted pairs, and the matrix of all pairs.
"use strict";

const FORCED = 400; // images up to which springs place them; beyond, they stand on a circle
const EDGES = 20000; // drawn, those with most inliers

// Places in [0, 1]²: springs along pairs, images push each other off (Fruchterman, Reingold 1991).
function springs(count) {
  const x = Float64Array.from({ length: count }, (_, i) => Math.cos(2 * Math.PI * i / count));
  const y = Float64Array.from({ length: count }, (_, i) => Math.sin(2 * Math.PI * i / count));
  const k = 1.6 / Math.sqrt(count), steps = 200;
  for (let step = 0; step < steps; step++) {
    const fx = new Float64Array(count), fy = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      fx[i] -= 0.6 * k * x[i]; // a little gravity keeps components together
      fy[i] -= 0.6 * k * y[i];
      for (let j = 0; j < i; j++) {
        const dx = x[i] - x[j], dy = y[i] - y[j], push = k * k / Math.max(dx * dx + dy * dy, 1e-6);
        fx[i] += dx * push; fy[i] += dy * push; fx[j] -= dx * push; fy[j] -= dy * push;
      }
    }
    for (let e = 0; e < ACCEPTED.length; e += 3) {
      const i = ACCEPTED[e], j = ACCEPTED[e + 1], dx = x[i] - x[j], dy = y[i] - y[j];
      const pull = Math.hypot(dx, dy) / k * Math.min(1, ACCEPTED[e + 2] / 200) * 0.5;
      fx[i] -= dx * pull; fy[i] -= dy * pull; fx[j] += dx * pull; fy[j] += dy * pull;
    }
    const most = 0.15 * (1 - step / steps) + 0.002;
    for (let i = 0; i < count; i++) {
      const length = Math.hypot(fx[i], fy[i]) || 1, by = Math.min(length, most) / length;
      x[i] += fx[i] * by; y[i] += fy[i] * by;
    }
  }
  return unit(x, y);
}

// On a circle, components one after the other.
function circle(count) {
  const x = new Float64Array(count), y = new Float64Array(count);
  ORDER.forEach((image, at) => { x[image] = Math.cos(2 * Math.PI * at / count); y[image] = Math.sin(2 * Math.PI * at / count); });
  return unit(x, y);
}

function unit(x, y) {
  return [x, y].map((values) => {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    return values.map((value) => (high > low ? (value - low) / (high - low) : 0.5));
  });
}

// Images by component, the largest first, then by name.
const ORDER = IMAGES.name.map((_, i) => i).sort((a, b) => IMAGES.component[a] - IMAGES.component[b] || a - b);

function matchGraph() {
  if (!DATA.pairs || !ACCEPTED.length) return null;
  const count = IMAGES.name.length;
  const bridges = new Set(DATA.pairs.bridges.map(([i, j]) => i * count + j));
  const canvas = el("canvas", { class: "graph", role: "img", "aria-label": `Graph of ${number(count)} images and ${number(ACCEPTED.length / 3)} accepted pairs` });
  let places = null;

  function at(image) {
    const margin = 14;
    return [margin + places[0][image] * (canvas.clientWidth - 2 * margin), margin + places[1][image] * (canvas.clientHeight - 2 * margin)];
  }

  function draw() {
    places = places || (count <= FORCED ? springs(count) : circle(count));
    const ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    pen.scale(ratio, ratio);
    const [one, two, quiet, ink] = ["--one", "--two", "--quiet", "--ink"].map(style);
    const most = Math.max(ACCEPTED[2], 1);
    for (let e = 3 * Math.min(EDGES, ACCEPTED.length / 3) - 3; e >= 0; e -= 3) {
      const [i, j, inliers] = [ACCEPTED[e], ACCEPTED[e + 1], ACCEPTED[e + 2]];
      const bridge = bridges.has(i * count + j);
      pen.globalAlpha = bridge ? 1 : (count > FORCED ? 0.1 : 0.25) + 0.5 * inliers / most;
      pen.strokeStyle = bridge ? two : quiet;
      pen.lineWidth = bridge ? 3 : 0.7 + 2 * inliers / most;
      pen.beginPath();
      pen.moveTo(...at(i));
      pen.lineTo(...at(j));
      pen.stroke();
    }
    pen.globalAlpha = 1;
    const radius = count > FORCED ? 2 : 5;
    for (let image = 0; image < count; image++) {
      const inside = IMAGES.model[image] >= 0;
      pen.beginPath();
      pen.arc(...at(image), image === selection.image ? radius + 3 : radius, 0, 7);
      pen.fillStyle = inside ? one : style("--card");
      pen.strokeStyle = image === selection.image ? ink : inside ? one : two;
      pen.lineWidth = 2;
      pen.fill();
      pen.stroke();
    }
  }

  canvas.addEventListener("click", (event) => {
    if (!places) return;
    let best = [16, null];
    for (let image = 0; image < count; image++) {
      const [x, y] = at(image), apart = Math.hypot(x - event.offsetX, y - event.offsetY);
      if (apart < best[0]) best = [apart, image];
    }
    if (best[1] !== null) select(best[1]);
  });
  onSelect(() => places && draw());
  new ResizeObserver(() => places && draw()).observe(canvas);
  whenSeen(canvas, draw);
  return section("graph", "Match graph",
    el("p", { class: "legend" }, el("span", { class: "key", "aria-hidden": "true" }), "registered", el("span", { class: "key two", "aria-hidden": "true" }), "not registered", el("span", { class: "key line", "aria-hidden": "true" }), "a bridge: the only connection of two parts",
      ACCEPTED.length / 3 > EDGES ? `; the ${number(EDGES)} pairs with most inliers are drawn` : null),
    canvas, el("p", {}, components()), bridgeList());
}

function components() {
  const sizes = DATA.pairs.sizes, alone = IMAGES.accepted.filter((pairs) => pairs === 0).length;
  const told = sizes.length === 1 ? `One component of ${number(sizes[0])} images` : `${number(sizes.length)} components of ${sizes.slice(0, 8).map((size) => number(size)).join(", ")}${sizes.length > 8 ? ", …" : ""} images`;
  return told + (alone ? `; ${number(alone)} images have no accepted pair.` : ".");
}

function bridgeList() {
  if (!DATA.pairs.bridges.length) return null;
  const shown = DATA.pairs.bridges.slice(0, 20).map(([i, j, inliers, behind]) => el("li", {},
    el("button", { type: "button", class: "plain", click: () => select(i, pairOf(i, j)) }, `${IMAGES.name[i]} and ${IMAGES.name[j]}`), `: ${number(inliers)} inliers, ${number(behind)} image${behind === 1 ? "" : "s"} behind it`));
  return el("details", {}, el("summary", {}, `${number(DATA.pairs.bridges.length)} bridges`), el("ul", {}, ...shown));
}

function pairOf(i, j) {
  const found = (PARTNERS.get(i) || []).find((pair) => ACCEPTED[3 * pair] === j || ACCEPTED[3 * pair + 1] === j);
  return found === undefined ? null : found;
}

// Every pair as a cell: the colour says how many inliers. With many images, a cell is several pairs, the best counts.
function matrix() {
  if (!DATA.pairs || IMAGES.name.length < 2) return null;
  const count = IMAGES.name.length, cells = Math.min(count, 600);
  const canvas = el("canvas", { class: "matrix", width: cells, height: cells, role: "img", "aria-label": "Matrix of pairs; neighbours of an image are listed beside it when it is selected" });
  const told = el("p", { class: "quiet" }, "Point at a cell to see its pair.");
  const rank = new Uint32Array(count);
  ORDER.forEach((image, at) => { rank[image] = at; });
  const cell = (image) => Math.floor(rank[image] * cells / count);
  const best = new Float64Array(cells * cells).fill(-2);
  const rejected = decode(DATA.pairs.rejected, Uint32Array);
  let most = 1;
  const put = (i, j, value) => { for (const at of [cell(i) * cells + cell(j), cell(j) * cells + cell(i)]) best[at] = Math.max(best[at], value); };
  const why = new Map();
  for (let e = 0; e < rejected.length; e += 3) { put(rejected[e], rejected[e + 1], -1); why.set(rejected[e] * count + rejected[e + 1], rejected[e + 2]); }
  for (let e = 0; e < ACCEPTED.length; e += 3) { put(ACCEPTED[e], ACCEPTED[e + 1], ACCEPTED[e + 2]); most = Math.max(most, ACCEPTED[e + 2]); }

  function draw() {
    const pen = canvas.getContext("2d"), pixels = pen.createImageData(cells, cells);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    for (let at = 0; at < best.length; at++) {
      const value = best[at];
      const colour = value > 0 ? shade(Math.log1p(value) / Math.log1p(most)) : value === -1 ? (dark ? [58, 62, 68] : [205, 207, 210]) : dark ? [21, 23, 26] : [246, 246, 243];
      pixels.data.set([...colour, 255], 4 * at);
    }
    pen.putImageData(pixels, 0, 0);
  }

  function under(event) {
    const [x, y] = [event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight].map((t) => ORDER[Math.min(count - 1, Math.max(0, Math.floor(t * count)))]);
    return [Math.min(x, y), Math.max(x, y)];
  }

  canvas.addEventListener("mousemove", (event) => {
    const [i, j] = under(event), pair = pairOf(i, j), verdict = Object.keys(DATA.pairs.verdicts)[why.get(i * count + j)];
    told.textContent = i === j ? IMAGES.name[i] : `${IMAGES.name[i]}, ${IMAGES.name[j]}: ${pair !== null ? `${number(ACCEPTED[3 * pair + 2])} inliers` : verdict || "not tried, or not listed here"}`;
  });
  canvas.addEventListener("click", (event) => { const [i, j] = under(event); select(i, pairOf(i, j)); });
  whenSeen(canvas, draw);
  const verdicts = Object.entries(DATA.pairs.verdicts).map(([verdict, pairs]) => `${number(pairs)} ${verdict}`).join("; ");
  const width = Math.min(544, Math.max(cells, 220));
  canvas.style.width = `min(100%, ${width}px)`;
  return section("matrix", "Pair matrix", el("p", {}, verdicts ? `${verdicts}.` : "Pairs were not judged."),
    el("p", { class: "legend" }, ...(most > 1 ? [...scale("few inliers", `${number(most)} inliers`), "; "] : []), "grey: rejected"), canvas, told);
}
