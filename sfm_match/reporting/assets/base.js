// What the other scripts share: the data, elements made without HTML, colours, and which image is selected.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const IMAGES = DATA.images;

// An array of a typed kind from base64.
function decode(text, Kind) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at);
  return new Kind(bytes.buffer);
}

// An element. Strings become text, never markup: names of images are strangers'.
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child))));
  return element;
}

// A section of the page with its entry in the contents.
function section(id, title, ...children) {
  const made = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), ...children);
  document.getElementById("contents").append(el("li", {}, el("a", { href: `#${id}` }, title)));
  return made;
}

// Draws when the element comes into view, and again when the colours of the page change.
function whenSeen(element, draw) {
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }, { rootMargin: "300px" });
  seen.observe(element);
}

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// Cividis (Nunez, Anderton, Renslow 2018), seen alike with and without colour blindness; t from 0 to 1.
const CIVIDIS = [[0, 34, 78], [43, 68, 110], [87, 93, 109], [125, 124, 120], [166, 157, 117], [211, 193, 100], [254, 232, 56]];
function cividis(t) {
  const at = Math.min(Math.max(t, 0), 1) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[low].map((value, i) => Math.round(value + (at - low) * (CIVIDIS[low + 1][i] - value)));
}
function rgb(colour) { return `rgb(${colour.join(" ")})`; }

// The errors that the ends of the colours stand for: nine images in ten are between.
const ERRORS = (() => {
  const errors = IMAGES.error.filter((error) => error !== null).sort((a, b) => a - b);
  if (!errors.length) return [0, 1];
  const [low, high] = [0.05, 0.95].map((share) => errors[Math.round(share * (errors.length - 1))]);
  return [low, Math.max(high, low + 1e-3)];
})();

// The colour of a value from 0 to 1: the darkest ones would not be seen on a dark ground.
function shade(t) { return cividis(0.25 + 0.75 * Math.min(Math.max(t, 0), 1)); }

function scale(low, high) {
  const colours = Array.from({ length: 9 }, (_, i) => rgb(shade(i / 8))).join(",");
  const bar = el("span", { class: "scale", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(90deg, ${colours})`;
  return [low, bar, high];
}

function picture(image, alt = "") {
  const code = IMAGES.picture[image];
  return code ? el("img", { src: `data:image/jpeg;base64,${code}`, alt, loading: "lazy", decoding: "async" }) : null;
}

// Accepted pairs, the most inliers first: i, j, inliers in threes.
const ACCEPTED = DATA.pairs ? decode(DATA.pairs.accepted, Uint32Array) : new Uint32Array();
const PARTNERS = new Map(); // image -> places of its accepted pairs
for (let pair = 0; pair < ACCEPTED.length / 3; pair++) {
  for (const image of [ACCEPTED[3 * pair], ACCEPTED[3 * pair + 1]]) {
    if (!PARTNERS.has(image)) PARTNERS.set(image, []);
    PARTNERS.get(image).push(pair);
  }
}

// Which image is selected, and which pair of it; who shows it is told.
const selection = { image: null, pair: null, listeners: [] };
function onSelect(listener) { selection.listeners.push(listener); }
function select(image, pair = null) {
  selection.image = image;
  selection.pair = pair;
  for (const listener of selection.listeners) listener(image, pair);
}

function state(image) {
  if (IMAGES.failed[image]) return "failed";
  return IMAGES.model[image] >= 0 ? "registered" : "not registered";
}
