// Puts the page together, the most important first.
"use strict";

const LEVELS = { good: "✓ Good", look: "! Look at this", bad: "✕ No model", unfinished: "… Not finished" };

function verdictOf() {
  const { level, title, lines } = DATA.verdict;
  return el("section", { class: `verdict ${level}`, "aria-labelledby": "verdict-title" }, el("span", { class: "badge" }, LEVELS[level]), el("h1", { id: "verdict-title" }, title),
    ...lines.map((line) => el("p", {}, line)),
    el("dl", { class: "numbers" }, ...DATA.summary.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
}

function commandLine(command) {
  const copy = el("button", { type: "button", click: () => navigator.clipboard?.writeText(command).then(() => { copy.textContent = "Copied"; }, () => null) }, "Copy");
  return el("div", { class: "command" }, el("code", {}, command), copy);
}

function adviceOf() {
  if (!DATA.advice.length) return null;
  return section("advice", "What to do next", el("ul", {}, ...DATA.advice.map((one) => el("li", {}, one.text, one.command ? commandLine(one.command) : null))));
}

function failures() {
  const failed = IMAGES.name.map((_, i) => i).filter((i) => IMAGES.failed[i]);
  const stopped = DATA.stages.filter((one) => one.error);
  if (!failed.length && !DATA.problems.length && !stopped.length) return null;
  return section("failures", "Failures",
    DATA.problems.length ? el("ul", {}, ...DATA.problems.map((problem) => el("li", {}, problem))) : null,
    stopped.length ? el("ul", {}, ...stopped.map((one) => el("li", {}, `${one.stage}: ${one.error}`))) : null,
    failed.length ? el("p", {}, `${number(failed.length)} images have no features:`) : null,
    el("ul", {}, ...failed.slice(0, 200).map((i) => el("li", {}, `${IMAGES.name[i]}: ${IMAGES.why[i]}`))),
    failed.length > 200 ? el("p", { class: "quiet" }, "The others are in failed.csv, and in the table of images.") : null);
}

function settings() {
  const value = (one) => (one === null ? "–" : typeof one === "object" ? JSON.stringify(one) : typeof one === "boolean" ? (one ? "on" : "off") : String(one));
  const list = (rows) => el("dl", { class: "facts" }, ...Object.entries(rows).flatMap(([name, one]) => [el("dt", {}, name), el("dd", {}, value(one))]));
  return section("settings", "Settings and versions",
    el("h3", {}, "Made by"), list({ ...DATA.versions, report: `sfm-match ${DATA.about.version}, ${DATA.about.made}`, workspace: DATA.about.workspace, photographs: DATA.about.photographs }),
    ...Object.entries(DATA.settings).map(([stage, rows]) => el("details", {}, el("summary", {}, stage), list(rows))));
}

function cuts() {
  return DATA.cuts.length ? section("cuts", "What is not shown as a whole", el("ul", {}, ...DATA.cuts.map((cut) => el("li", {}, cut)))) : null;
}

const workspace = DATA.about.workspace.split("/").pop(); // the whole path is among the settings
document.title = `${workspace} – sfm-match report`;
document.getElementById("about").textContent = `${workspace}, ${DATA.about.made}`;
const parts = [verdictOf(), adviceOf(), models(), IMAGES.name.length ? imageTable() : null, matchGraph(), matrix(), histograms(), residuals(), gps(), times(), failures(), settings(), cuts()];
document.getElementById("main").replaceChildren(el("div", { class: "column" }, ...parts.filter(Boolean)), IMAGES.name.length ? detail() : "");
if (IMAGES.name.length) onSelect(() => { // in one column, the selected image may be out of sight
  const panel = document.querySelector("aside"), { top, bottom } = panel.getBoundingClientRect();
  if (matchMedia("(max-width: 70rem)").matches && (bottom < 60 || top > innerHeight - 60)) panel.scrollIntoView();
});
