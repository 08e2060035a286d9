// A model in three dimensions: points, and cameras whose colour is their reprojection error.
"use strict";

const SIDES = [[-1, -1], [1, -1], [1, 1], [-1, 1]]; // corners of a frustum

// Lines of all frusta: from the centre to the corners, and around.
function frusta(model, size) {
  const count = model.images.length, ends = new Float32Array(count * 16 * 3);
  for (let c = 0; c < count; c++) {
    const centre = model.centres.subarray(3 * c, 3 * c + 3), axes = model.axes.subarray(9 * c, 9 * c + 9);
    const wide = size / Math.max(model.halves[2 * c], model.halves[2 * c + 1], 0.4) * 0.5;
    const corners = SIDES.map(([x, y]) => [0, 1, 2].map((k) => centre[k] + wide * (x * model.halves[2 * c] * axes[k] + y * model.halves[2 * c + 1] * axes[3 + k] + axes[6 + k])));
    corners.forEach((corner, i) => {
      ends.set([...centre, ...corner], c * 48 + i * 6);
      ends.set([...corner, ...corners[(i + 1) % 4]], c * 48 + 24 + i * 6);
    });
  }
  return ends;
}

function decoded(one) {
  return {
    ...one, points: decode(one.points, Uint16Array), colours: decode(one.colours, Uint8Array), centres: decode(one.centres, Float32Array),
    axes: decode(one.axes, Float32Array), halves: decode(one.halves, Float32Array),
  };
}

class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    this.renderer.outputColorSpace = "srgb-linear"; // colours are shown as they are in the model
    this.renderer.setClearColor(0, 0);
    this.eye = new THREE.PerspectiveCamera(50, 1, 0.01, 1000);
    this.controls = null;
    this.pointSize = 2;
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  show(model) {
    this.model = model;
    this.scene = new THREE.Scene();
    const range = model.high.map((high, k) => Math.max(high - model.low[k], 1e-9));
    const points = new THREE.BufferGeometry();
    points.setAttribute("position", new THREE.BufferAttribute(model.points, 3, true));
    points.setAttribute("color", new THREE.BufferAttribute(model.colours, 3, true));
    this.material = new THREE.PointsMaterial({ size: this.pointSize, sizeAttenuation: false, vertexColors: true });
    this.cloud = new THREE.Points(points, this.material);
    this.cloud.scale.set(...range);
    this.cloud.position.set(...model.low);
    this.cloud.frustumCulled = false;
    this.measure();
    const lines = new THREE.BufferGeometry();
    lines.setAttribute("position", new THREE.BufferAttribute(frusta(model, this.frustum), 3));
    this.lineColours = new Float32Array(model.images.length * 48);
    lines.setAttribute("color", new THREE.BufferAttribute(this.lineColours, 3));
    this.lines = new THREE.LineSegments(lines, new THREE.LineBasicMaterial({ vertexColors: true }));
    this.lines.frustumCulled = false;
    this.scene.add(this.cloud, this.lines);
    if (this.controls) this.controls.dispose();
    this.eye.up.set(...model.up).normalize();
    this.controls = new THREE.OrbitControls(this.eye, this.canvas);
    this.controls.addEventListener("change", () => this.render());
    this.still = true;
    this.paint();
    this.look(false);
  }

  // Where the scene is and how large: the middle of the points, and a radius that holds most of them and the cameras.
  measure() {
    const { points, centres, low, high } = this.model, count = points.length / 3, step = Math.max(1, Math.floor(count / 3000));
    const sample = [0, 1, 2].map((k) => {
      const values = [];
      for (let p = 0; p < count; p += step) values.push(low[k] + points[3 * p + k] / 65535 * (high[k] - low[k]));
      for (let c = 0; c < centres.length / 3; c++) if (!count) values.push(centres[3 * c + k]);
      return values.sort((a, b) => a - b);
    });
    this.target = new THREE.Vector3(...sample.map((values) => values[Math.floor(values.length / 2)] || 0));
    const reach = sample.map((values) => (values[Math.floor(0.95 * (values.length - 1))] || 0) - (values[Math.floor(0.05 * (values.length - 1))] || 0));
    this.radius = Math.max(Math.hypot(...reach) / 2, 1e-6);
    const apart = [], away = [];
    for (let c = 0; c < centres.length / 3; c++) {
      const own = new THREE.Vector3(...centres.subarray(3 * c, 3 * c + 3));
      away.push(own.distanceTo(this.target));
      if (c) apart.push(own.distanceTo(new THREE.Vector3(...centres.subarray(3 * c - 3, 3 * c))));
    }
    for (const distances of [apart, away]) distances.sort((a, b) => a - b);
    const most = away[Math.floor(0.8 * (away.length - 1))] || 0; // a few far ones may be out of sight at first
    this.radius = Math.max(this.radius, 0.7 * Math.min(most, 4 * this.radius));
    this.frustum = Math.min(0.12 * this.radius, Math.max(0.02 * this.radius, 0.5 * (apart[Math.floor(apart.length / 2)] || this.radius)));
  }

  // From behind the cameras, or from above.
  look(above) {
    const { axes, images } = this.model, back = new THREE.Vector3();
    for (let c = 0; c < images.length; c++) back.sub(new THREE.Vector3(axes[9 * c + 6], axes[9 * c + 7], axes[9 * c + 8]));
    const up = this.eye.up.clone();
    back.addScaledVector(up, -back.dot(up));
    if (back.length() < 0.2 * images.length) back.set(up.y, up.z, up.x).cross(up); // they look all around
    back.normalize();
    const from = above ? up.clone().addScaledVector(back, 0.02) : back.addScaledVector(up, 0.35);
    from.normalize();
    this.eye.near = this.radius / 500;
    this.eye.far = this.radius * 200;
    this.still = true; // one picture at the end is enough
    this.controls.target.copy(this.target);
    this.resize();
    for (let distance = 1.6 * this.radius; distance < 8 * this.radius; distance *= 1.1) {
      this.eye.position.copy(this.target).addScaledVector(from, distance);
      this.controls.update();
      this.eye.updateMatrixWorld();
      if (this.seen() >= 0.9) break;
    }
    this.still = false;
    this.render();
  }

  // The share of the cameras that are in sight.
  seen() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight], count = this.model.images.length;
    let inside = 0;
    for (let c = 0; c < count; c++) {
      const at = this.place(c);
      if (at && at[0] > 20 && at[0] < width - 20 && at[1] > 20 && at[1] < height - 20) inside++;
    }
    return inside / Math.max(count, 1);
  }

  paint() {
    this.model.images.forEach((image, c) => {
      const error = IMAGES.error[image], chosen = image === selection.image;
      const colour = chosen ? [255, 80, 200] : shade((error - ERRORS[0]) / (ERRORS[1] - ERRORS[0]));
      for (let v = 0; v < 16; v++) this.lineColours.set(colour.map((value) => value / 255), 48 * c + 3 * v);
    });
    this.lines.geometry.attributes.color.needsUpdate = true;
    this.render();
  }

  resize() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (!width || !height || !this.scene) return;
    this.renderer.setPixelRatio(window.devicePixelRatio || 1);
    this.renderer.setSize(width, height, false);
    this.eye.aspect = width / height;
    this.eye.updateProjectionMatrix();
    this.render();
  }

  render() {
    if (this.scene && !this.still) this.renderer.render(this.scene, this.eye);
  }

  // Where a camera is on the canvas, pixels; null behind the eye.
  place(c) {
    const at = new THREE.Vector3(...this.model.centres.subarray(3 * c, 3 * c + 3)).project(this.eye);
    return at.z > 1 ? null : [(at.x + 1) / 2 * this.canvas.clientWidth, (1 - at.y) / 2 * this.canvas.clientHeight];
  }

  pick(x, y) {
    let best = [22, null];
    for (let c = 0; c < this.model.images.length; c++) {
      const at = this.place(c), apart = at ? Math.hypot(at[0] - x, at[1] - y) : Infinity;
      if (apart < best[0]) best = [apart, this.model.images[c]];
    }
    return best[1];
  }

  turn(across, along, closer) {
    const off = this.eye.position.clone().sub(this.controls.target), up = this.eye.up;
    off.applyAxisAngle(up, across);
    const side = off.clone().cross(up).normalize(), turned = off.clone().applyAxisAngle(side, along);
    const tilt = Math.abs(turned.clone().normalize().dot(up));
    this.eye.position.copy(this.controls.target).add((tilt < 0.99 ? turned : off).multiplyScalar(closer));
    this.controls.update();
    this.render();
  }
}

function models() {
  if (!DATA.models.length) return null;
  const canvas = el("canvas", { class: "scene", id: "scene", tabindex: "0", role: "application", "aria-label": "The model. Arrow keys turn it, plus and minus zoom, n and p select the next and the previous camera." });
  let viewer;
  try {
    viewer = new Viewer(canvas);
  } catch (error) {
    return section("model", "Model", el("p", { class: "note" }, "This browser shows no three dimensions (WebGL is off)."), numbersOf(DATA.models[0]));
  }
  let shown = 0;
  const facts = el("div");
  const step = (by) => {
    const { images } = viewer.model, at = images.indexOf(selection.image);
    select(images[(at < 0 ? (by > 0 ? 0 : images.length - 1) : at + by + images.length) % images.length]);
  };
  const show = (which) => { shown = which; viewer.show(decoded(DATA.models[which])); facts.replaceChildren(numbersOf(DATA.models[which])); };
  const which = el("select", { id: "which", change: () => show(Number(which.value)) }, ...DATA.models.map((one, i) => el("option", { value: i }, `${i}: ${number(one.images.length)} images`)));
  const size = el("input", { type: "range", id: "size", min: 1, max: 6, step: 0.5, value: 2, input: () => { viewer.pointSize = viewer.material.size = Number(size.value); viewer.render(); } });
  canvas.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: [-0.15, 0, 1], ArrowRight: [0.15, 0, 1], ArrowUp: [0, -0.12, 1], ArrowDown: [0, 0.12, 1], "+": [0, 0, 0.85], "=": [0, 0, 0.85], "-": [0, 0, 1 / 0.85] };
    if (keys[event.key]) viewer.turn(...keys[event.key]);
    else if (event.key === "n" || event.key === "p") step(event.key === "n" ? 1 : -1);
    else return;
    event.preventDefault();
  });
  let pressed = [0, 0];
  canvas.addEventListener("pointerdown", (event) => { pressed = [event.offsetX, event.offsetY]; });
  canvas.addEventListener("click", (event) => {
    if (Math.hypot(event.offsetX - pressed[0], event.offsetY - pressed[1]) > 5) return; // it was turned
    const image = viewer.pick(event.offsetX, event.offsetY);
    if (image !== null) select(image);
  });
  onSelect((image) => {
    const own = IMAGES.model[image];
    if (own >= 0 && own !== shown && !viewer.model?.images.includes(image)) { which.value = String(own); show(own); }
    if (viewer.model) viewer.paint();
  });
  window.viewer = viewer; // for tests, and for the curious
  whenSeen(canvas, () => (viewer.model ? viewer.render() : show(0)));
  return section("model", DATA.models.length > 1 ? "Models" : "Model",
    el("div", { class: "bar" }, DATA.models.length > 1 ? el("label", { for: "which" }, "Model") : null, DATA.models.length > 1 ? which : null,
      el("button", { type: "button", click: () => viewer.look(false) }, "Reset the view"), el("button", { type: "button", click: () => viewer.look(true) }, "From above"),
      el("button", { type: "button", click: () => step(-1) }, "Previous camera"), el("button", { type: "button", click: () => step(1) }, "Next camera"), el("label", { for: "size" }, "Points", size)),
    canvas, el("p", { class: "legend" }, "Cameras by reprojection error: ", ...scale(`${number(ERRORS[0], 2)} px`, `${number(ERRORS[1], 2)} px`), "; the selected one is pink"), facts);
}

function numbersOf(one) {
  const told = one.numbers;
  const parts = [`${number(one.images.length)} images`, `${number(one.count)} points`];
  if (told.track_length !== undefined) parts.push(`track length ${number(told.track_length, 2)}`, `reprojection error ${number(told.reprojection_error, 2)} px`);
  parts.push(told.georeference ? "in metres: east, north, up" : "in the mapper's axes and scale");
  if (told.gps) parts.push(told.gps);
  const odd = told.odd && told.odd.length ? el("ul", {}, ...told.odd.map((sentence) => el("li", {}, sentence))) : null;
  return el("div", {}, el("p", {}, `${parts.join(", ")}.`), odd && el("p", { class: "note" }, el("strong", {}, "What speaks against it:"), odd));
}
