// The selected image beside the page: its photograph with keypoints, its figures, its neighbours, a pair's matches.
"use strict";

const DRAWN = DATA.drawn && {
  starts: decode(DATA.drawn.starts, Uint32Array), keypoints: decode(DATA.drawn.keypoints, Uint16Array),
  matchStarts: decode(DATA.drawn.match_starts, Uint32Array), matches: decode(DATA.drawn.matches, Uint16Array),
};
const FULL = 65535; // the right or lower edge of an image in these
const NEIGHBOURS = 24;

function sizeOf(image, wide) {
  const [width, height] = [IMAGES.width[image] || 4, IMAGES.height[image] || 3];
  return [wide, Math.max(1, Math.round(wide * height / width))];
}

// Draws a photograph on a canvas; without its picture, a plain field.
async function paint(pen, image, x, y, width, height) {
  pen.fillStyle = style("--ground");
  pen.fillRect(x, y, width, height);
  const shown = picture(image);
  if (!shown) return;
  shown.loading = "eager";
  await shown.decode().catch(() => null);
  pen.drawImage(shown, x, y, width, height);
}

async function drawImage(canvas, image, withKeypoints) {
  const [width, height] = sizeOf(image, 800), pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [width, height];
  await paint(pen, image, 0, 0, width, height);
  if (!DRAWN || !withKeypoints) return;
  pen.fillStyle = "#ffd23f";
  pen.strokeStyle = "rgb(0 0 0 / .7)";
  for (let k = DRAWN.starts[image]; k < DRAWN.starts[image + 1]; k++) {
    pen.beginPath();
    pen.arc(DRAWN.keypoints[2 * k] / FULL * width, DRAWN.keypoints[2 * k + 1] / FULL * height, 2.2, 0, 7);
    pen.fill();
    pen.stroke();
  }
}

// Both photographs side by side, a line a match, at most so many.
async function drawPair(canvas, pair, wide, most) {
  const [i, j] = [ACCEPTED[3 * pair], ACCEPTED[3 * pair + 1]], gap = 6;
  const half = Math.floor((wide - gap) / 2), pen = canvas.getContext("2d");
  const [a, b] = [sizeOf(i, half), sizeOf(j, half)];
  [canvas.width, canvas.height] = [wide, Math.max(a[1], b[1])];
  await Promise.all([paint(pen, i, 0, 0, ...a), paint(pen, j, half + gap, 0, ...b)]);
  const [first, last] = DRAWN ? [DRAWN.matchStarts[pair], DRAWN.matchStarts[pair + 1]] : [0, 0];
  pen.lineWidth = wide > 1000 ? 1.4 : 1.2;
  const step = Math.max(1, Math.ceil((last - first) / most));
  for (let m = first; m < last; m += step) {
    const [x, y, u, v] = DRAWN.matches.subarray(4 * m, 4 * m + 4);
    pen.strokeStyle = rgb(cividis(0.35 + 0.65 * ((m * 7) % 13) / 12)); // neighbouring lines differ
    pen.globalAlpha = 0.75;
    pen.beginPath();
    pen.moveTo(x / FULL * a[0], y / FULL * a[1]);
    pen.lineTo(half + gap + u / FULL * b[0], v / FULL * b[1]);
    pen.stroke();
  }
  pen.globalAlpha = 1;
  return Math.ceil((last - first) / step);
}

function detail() {
  const panel = el("aside", { id: "detail", tabindex: "0", "aria-labelledby": "detail-title" });
  const large = el("dialog", { "aria-label": "Larger picture" });
  document.body.append(large);
  let withKeypoints = true;

  async function enlarge(draw, title) {
    const canvas = el("canvas", { class: "photo", role: "img", "aria-label": title });
    large.replaceChildren(el("div", { class: "bar" }, el("button", { type: "button", autofocus: "", click: () => large.close() }, "Close"), el("span", {}, title)), canvas);
    large.showModal();
    await draw(canvas);
  }

  function facts(image) {
    const rows = [
      ["State", state(image) === "registered" ? `registered in model ${IMAGES.model[image]}` : state(image)],
      ["Why not", IMAGES.why[image]],
      ["Size", IMAGES.width[image] ? `${number(IMAGES.width[image])} × ${number(IMAGES.height[image])} px` : null],
      ["Keypoints", IMAGES.keypoints[image] === null ? null : number(IMAGES.keypoints[image])],
      ["Accepted pairs", DATA.pairs ? `${number(IMAGES.accepted[image])} of ${number(IMAGES.tried[image])}` : null],
      ["Points", IMAGES.points[image] ? number(IMAGES.points[image]) : null],
      ["Error", IMAGES.error[image] === null ? null : `${number(IMAGES.error[image], 2)} px`],
      ["From GPS", IMAGES.gps[image] === null ? null : `${number(IMAGES.gps[image], 1)} m`],
    ];
    return el("dl", { class: "facts" }, ...rows.filter(([, value]) => value !== null && value !== undefined).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  function neighbours(image) {
    const mine = PARTNERS.get(image) || [];
    const other = (pair) => (ACCEPTED[3 * pair] === image ? ACCEPTED[3 * pair + 1] : ACCEPTED[3 * pair]);
    return [el("h3", {}, `Neighbours (${number(mine.length)})`), el("ul", { class: "neighbours" }, ...mine.slice(0, NEIGHBOURS).map((pair) => el("li", {},
      el("button", { type: "button", "aria-pressed": String(pair === selection.pair), click: () => select(image, pair) },
        picture(other(pair)), `${IMAGES.name[other(pair)]}: ${number(ACCEPTED[3 * pair + 2])}`)))),
    mine.length > NEIGHBOURS ? el("p", { class: "quiet" }, `The ${NEIGHBOURS} with most inliers.`) : null];
  }

  function pairView(image, pair) {
    const [i, j] = [ACCEPTED[3 * pair], ACCEPTED[3 * pair + 1]], canvas = el("canvas", { class: "photo", role: "img", "aria-label": `Matches of ${IMAGES.name[i]} and ${IMAGES.name[j]}` });
    const told = el("p", { class: "quiet" });
    drawPair(canvas, pair, 800, 100).then((drawn) => { told.textContent = `${number(drawn)} of ${number(ACCEPTED[3 * pair + 2])} inliers are drawn.`; });
    const title = `${IMAGES.name[i]} and ${IMAGES.name[j]}`, other = i === image ? j : i;
    return el("div", { id: "pair" }, el("h3", {}, `Matches of ${title}`), canvas, told, el("div", { class: "bar" },
      el("button", { type: "button", click: () => enlarge((large) => drawPair(large, pair, 1600, 400), title) }, "Enlarge"),
      el("button", { type: "button", click: () => select(other, pair) }, `Go to ${IMAGES.name[other]}`)));
  }

  function show(image, pair) {
    const canvas = el("canvas", { class: "photo", role: "img", "aria-label": `${IMAGES.name[image]} with its keypoints` });
    const toggle = el("button", { type: "button", "aria-pressed": String(withKeypoints), click: () => {
      withKeypoints = !withKeypoints;
      toggle.setAttribute("aria-pressed", String(withKeypoints));
      drawImage(canvas, image, withKeypoints);
    } }, "Keypoints");
    drawImage(canvas, image, withKeypoints);
    panel.replaceChildren(el("h2", { id: "detail-title" }, IMAGES.name[image]), canvas,
      el("div", { class: "bar" }, DRAWN ? toggle : "", el("button", { type: "button", click: () => enlarge((large) => drawImage(large, image, withKeypoints), IMAGES.name[image]) }, "Enlarge")),
      facts(image), ...(pair === null ? [] : [pairView(image, pair)]), ...neighbours(image).filter(Boolean));
    panel.scrollTop = 0;
  }

  panel.append(el("h2", { id: "detail-title" }, "No image selected"), el("p", { class: "quiet" }, "Click a camera of the model, a node of the graph or a row of the table."));
  onSelect(show);
  return panel;
}
