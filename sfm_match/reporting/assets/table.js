// The table of images: sorted by any column, searched, a page at a time.
"use strict";

const ROWS = 50; // of a page
const COLUMNS = [
  { title: "Image", of: (i) => IMAGES.name[i] },
  { title: "Keypoints", of: (i) => IMAGES.keypoints[i], number: true },
  { title: "Accepted pairs", of: (i) => IMAGES.accepted[i], number: true, shown: (i) => `${number(IMAGES.accepted[i])} of ${number(IMAGES.tried[i])}` },
  { title: "State", words: true, of: (i) => state(i), shown: (i) => (IMAGES.model[i] >= 0 ? `model ${IMAGES.model[i]}` : IMAGES.why[i] || state(i)) },
  { title: "Points", of: (i) => IMAGES.points[i], number: true },
  { title: "Error, px", of: (i) => IMAGES.error[i], number: true, digits: 2 },
  { title: "GPS, m", of: (i) => IMAGES.gps[i], number: true, digits: 1 },
].filter((column) => column.title !== "GPS, m" || IMAGES.gps.some((metres) => metres !== null));

function imageTable() {
  const view = { column: 0, down: false, text: "", state: "", page: 0 };
  const body = el("tbody");
  const heads = COLUMNS.map((column, at) => el("th", { scope: "col", class: column.number ? "number" : null },
    el("button", { type: "button", click: () => sortBy(at) }, column.title)));
  const told = el("p", { class: "quiet", role: "status" });
  const before = el("button", { type: "button", click: () => turn(-1) }, "Previous");
  const after = el("button", { type: "button", click: () => turn(1) }, "Next");
  const search = el("input", { type: "search", id: "search", input: () => { view.text = search.value.toLowerCase(); view.page = 0; show(); } });
  const states = el("select", { id: "state", change: () => { view.state = states.value; view.page = 0; show(); } },
    el("option", { value: "" }, "all"), ...["registered", "not registered", "failed"].map((one) => el("option", {}, one)));

  function sortBy(at) {
    view.down = view.column === at && !view.down;
    view.column = at;
    view.page = 0;
    show();
  }

  function turn(by) {
    view.page += by;
    show();
  }

  function chosen() {
    const column = COLUMNS[view.column];
    const every = IMAGES.name.map((_, i) => i).filter((i) => (!view.state || state(i) === view.state)
      && (!view.text || `${IMAGES.name[i]} ${IMAGES.why[i] || ""}`.toLowerCase().includes(view.text)));
    const sign = view.down ? -1 : 1;
    return every.sort((a, b) => {
      const [x, y] = [column.of(a), column.of(b)];
      if (x === null || y === null) return (x === null) - (y === null); // without a value: at the end
      return sign * (column.number ? x - y : x < y ? -1 : x > y ? 1 : 0);
    });
  }

  function row(i) {
    const cells = COLUMNS.map((column, at) => {
      if (at === 0) return el("th", { scope: "row" }, el("button", { type: "button", class: "plain", click: () => select(i) }, IMAGES.name[i]));
      return el("td", { class: column.number ? "number" : column.words ? "words" : null }, column.shown ? column.shown(i) : number(column.of(i), column.digits));
    });
    return el("tr", { "data-image": i, class: selection.image === i ? "chosen" : null }, el("td", {}, picture(i)), ...cells);
  }

  function show() {
    const found = chosen();
    const pages = Math.max(1, Math.ceil(found.length / ROWS));
    view.page = Math.min(Math.max(view.page, 0), pages - 1);
    body.replaceChildren(...found.slice(view.page * ROWS, (view.page + 1) * ROWS).map(row));
    heads.forEach((head, at) => head.setAttribute("aria-sort", at !== view.column ? "none" : view.down ? "descending" : "ascending"));
    told.textContent = `${number(found.length)} of ${number(IMAGES.name.length)} images` + (pages > 1 ? `, page ${view.page + 1} of ${pages}` : "");
    [before.disabled, after.disabled] = [view.page === 0, view.page === pages - 1];
    before.hidden = after.hidden = pages === 1;
  }

  onSelect((image) => {
    for (const one of body.children) one.classList.toggle("chosen", Number(one.dataset.image) === image);
  });
  show();
  return section("images", "Images",
    el("div", { class: "bar" }, el("label", { for: "search" }, "Search names and reasons"), search, el("label", { for: "state" }, "Show"), states, before, after, told),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of images" },
      el("table", {}, el("thead", {}, el("tr", {}, el("td", {}), ...heads)), body)));
}
