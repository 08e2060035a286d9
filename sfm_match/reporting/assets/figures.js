// Histograms, residual fields, GPS plans and times, as SVG.
"use strict";

const WIDE = 300, HIGH = 130, FOOT = 18; // pixels of a histogram

function histogram(one) {
  const most = Math.max(...one.counts), wide = WIDE / one.counts.length;
  const bars = one.counts.map((count, i) => {
    const high = count ? Math.max(1, (HIGH - FOOT) * count / most) : 0;
    return svg("rect", { class: "one", x: i * wide + 0.5, y: HIGH - FOOT - high, width: Math.max(wide - 1, 1), height: high },
      svg("title", {}, `${shortly(one.edges[i])} to ${shortly(one.edges[i + 1])}: ${number(count)}`));
  });
  const low = svg("text", { x: 0, y: HIGH - 4 }, shortly(one.first));
  const high = svg("text", { x: WIDE, y: HIGH - 4, "text-anchor": "end" }, `${shortly(one.last)} ${one.unit}`);
  const text = `${one.title}: median ${shortly(one.median)} ${one.unit}, at most ${shortly(one.most)}`;
  return el("figure", {}, el("figcaption", {}, el("strong", {}, one.title), `, median ${shortly(one.median)}, at most ${shortly(one.most)} (${one.of})`),
    svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": text },
      svg("line", { class: "axis", x1: 0, x2: WIDE, y1: HIGH - FOOT, y2: HIGH - FOOT }), ...bars, low, high));
}

function shortly(value) {
  return Number.isInteger(value) ? number(value) : Math.abs(value) >= 100 ? number(value, 0) : number(value, Math.abs(value) < 10 ? 2 : 1);
}

function histograms() {
  if (!DATA.histograms.length) return null;
  return section("histograms", "Distributions", el("div", { class: "figures" }, ...DATA.histograms.map(histogram)));
}

// Mean residuals of a camera: arrows from the middle of each cell, so long that the largest fills one.
function residualField(one) {
  const [width, height] = one.size, wide = 320, high = Math.round(wide * height / width);
  const rows = one.count.length, columns = one.count[0].length, cell = wide / columns;
  let largest = 0, mean = 0, seen = 0;
  one.mean.forEach((row, y) => row.forEach(([dx, dy], x) => {
    if (one.count[y][x] < LEAST) return;
    largest = Math.max(largest, Math.hypot(dx, dy));
    mean += Math.hypot(dx, dy);
    seen += 1;
  }));
  const arrows = one.mean.flatMap((row, y) => row.map(([dx, dy], x) => {
    if (one.count[y][x] < LEAST || !largest) return null;
    const [cx, cy] = [(x + 0.5) * cell, (y + 0.5) * high / rows];
    return svg("g", {}, svg("circle", { class: "one", cx, cy, r: 1.5 }),
      svg("line", { class: "ray", x1: cx, y1: cy, x2: cx + dx / largest * cell * 0.9, y2: cy + dy / largest * cell * 0.9 }));
  }));
  const told = seen ? `mean ${number(mean / seen, 3)} px, longest arrow ${number(largest, 3)} px` : "too few observations";
  const caption = `Camera ${one.camera} (${one.model}, ${width} × ${height}), ${number(one.observations)} observations: ${told}`;
  return el("figure", {}, el("figcaption", {}, caption),
    svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": caption }, svg("rect", { class: "frame", x: 0.5, y: 0.5, width: wide - 1, height: high - 1 }), ...arrows));
}
const LEAST = 5; // observations of a cell

function residuals() {
  if (!DATA.fields.length) return null;
  return section("residuals", "Residuals over the image",
    el("p", { class: "quiet" }, "Mean of observed minus projected in each part of the image. Arrows that run together, in or out or around, say that the camera model does not fit the lens."),
    el("div", { class: "figures" }, ...DATA.fields.map(residualField)));
}

// GPS positions and the cameras, on a plan with east to the right and north up.
function gpsPlan(one) {
  const every = [...one.gps, ...one.fitted];
  const [east, north] = [0, 1].map((axis) => every.map((place) => place[axis]));
  const [left, right, low, top] = [Math.min(...east), Math.max(...east), Math.min(...north), Math.max(...north)];
  const size = Math.max(right - left, top - low, 1), margin = 0.06 * size, wide = 480;
  const zoom = wide / (size + 2 * margin);
  const high = Math.max(120, ((top - low) + 2 * margin) * zoom);
  const at = ([x, y]) => [(x - left + margin) * zoom, high - (y - low + margin) * zoom];
  const marks = one.images.map((image, i) => {
    const [gps, fitted] = [at(one.gps[i]), at(one.fitted[i])];
    return svg("g", { click: () => select(image) },
      svg("title", {}, `${IMAGES.name[image]}: ${number(IMAGES.gps[image], 1)} m`),
      svg("line", { class: "ray", x1: gps[0], y1: gps[1], x2: fitted[0], y2: fitted[1] }),
      svg("rect", { class: "two", x: gps[0] - 2.5, y: gps[1] - 2.5, width: 5, height: 5 }),
      svg("circle", { class: "one", cx: fitted[0], cy: fitted[1], r: 3 }));
  });
  const caption = `Model ${one.model}: ${number(one.images.length)} images with GPS, over ${number(right - left)} × ${number(top - low)} m`;
  return el("figure", {}, el("figcaption", {}, caption), svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": caption },
    svg("rect", { class: "frame", x: 0.5, y: 0.5, width: wide - 1, height: high - 1 }), ...marks));
}

function gps() {
  if (!DATA.gps.length) return null;
  return section("gps", "GPS", el("p", { class: "quiet" }, "Orange squares: GPS of the photographs. Blue dots: the cameras, after the similarity that fits best. North is up. The table of images lists the distances."),
    el("div", { class: "figures" }, ...DATA.gps.map(gpsPlan)));
}

// Where the time went, stage by stage; the limit of a stage is the activity that took longest.
function times() {
  const stages = DATA.stages.filter((one) => one.seconds !== undefined);
  if (!stages.length) return null;
  const longest = Math.max(...stages.map((one) => one.seconds), 1e-9);
  const bottleneck = stages.reduce((a, b) => (b.seconds > a.seconds ? b : a));
  const rows = stages.map((one) => {
    const parts = Object.entries(one.spent).sort((a, b) => b[1] - a[1]).filter(([, seconds]) => seconds > 0.005 * one.seconds);
    const bar = el("div", { class: "stage", "aria-hidden": "true" }, ...parts.map(([, seconds], i) => {
      const part = el("i");
      part.style.width = `${100 * seconds / one.seconds}%`;
      part.style.background = rgb(cividis(0.15 + 0.8 * i / Math.max(parts.length - 1, 1)));
      return part;
    }));
    bar.style.width = `${Math.max(100 * one.seconds / longest, 0.5)}%`;
    const told = parts.map(([what, seconds]) => `${what} ${number(100 * seconds / one.seconds)} %`).join(", ");
    return el("tr", {}, el("th", { scope: "row" }, one.stage), el("td", { class: "number" }, `${number(one.seconds, 1)} s`),
      el("td", { class: "number" }, `${number(one.done)} ${one.unit}`), el("td", {}, bar, told ? `${told}` : ""));
  });
  const limit = Object.entries(bottleneck.spent).sort((a, b) => b[1] - a[1])[0];
  return section("times", "Times",
    el("p", {}, `The stage ${bottleneck.stage} took longest` + (limit ? `; most of it went into “${limit[0]}”.` : ".")),
    el("p", { class: "quiet" }, "Of each stage's last run that computed something. Time of the stage's own thread."),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of times" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Stage"), el("th", { scope: "col", class: "number" }, "Time"),
      el("th", { scope: "col", class: "number" }, "Computed"), el("th", { scope: "col" }, "Where it went"))), el("tbody", {}, ...rows))));
}
