// The table of features: only the rows that are in sight are elements.

const BEYOND = 8;
const PRINTED = 200;
let scroller, body, counter, filters;
let scrolledTo = 0;
let tableAddress = "";

const isNarrow = () => matchMedia("(max-width: 760px)").matches;
const rowHeight = () => (isNarrow() ? 68 : 42);

function tableView() {
  const view = h("div", { class: "view table-view" }, h("h1", { class: "visually-hidden", tabindex: "-1" }, "Features"), toolbar());
  body = h("tbody", {});
  scroller = h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Table of features" },
    h("table", { class: "features", "aria-rowcount": order.length + 1 },
      h("colgroup", {}, columnsShown().map((one) => h("col", { class: `col-${one.key}` }))), h("thead", {}, head()), body));
  scroller.addEventListener("scroll", () => requestAnimationFrame(() => drawRows()), { passive: true });
  view.append(scroller);
  return view;
}

function head() {
  return h("tr", { "aria-rowindex": 1 }, columnsShown().map((one) => h("th", {
    scope: "col", class: `col-${one.key}${one.number && one.key !== "index" ? " num" : ""}`,
    "aria-sort": state.sort === one.key ? (state.down ? "descending" : "ascending") : "none",
  }, h("button", { type: "button", "data-sort": one.key, onclick: () => sortBy(one.key) }, h("span", {}, nameOf(one)),
    h("span", { class: "arrow", "aria-hidden": "true" }, state.sort === one.key ? (state.down ? "▾" : "▴") : "")))));
}

function sortBy(key, down) {
  const isSame = state.sort === key;
  state = { ...state, sort: key, down: down ?? (isSame ? !state.down : !column(key).upFirst) };
  refresh();
  scroller.querySelector(`[data-sort="${key}"]`)?.focus({ preventScroll: true });
}

function toolbar() {
  const search = h("input", { type: "search", id: "search", "aria-label": "Search numbers, tokens, promoted tokens and phrases",
    placeholder: "Search tokens, phrases, #number", autocomplete: "off", spellcheck: "false" });
  search.value = state.q;
  search.addEventListener("input", () => { state = { ...state, q: search.value }; refresh(); });
  const shown = Object.entries(KINDS_SHOWN).filter(([key]) => key !== "named" || values.comsem);
  const show = h("select", { id: "show", "aria-label": "Which features", onchange: () => { state = { ...state, show: show.value }; refresh(); } },
    shown.map(([key, [name]]) => h("option", { value: key }, name)));
  show.value = state.show;
  const sort = h("select", { id: "sort", "aria-label": "Sort by", onchange: () => sortBy(sort.value) },
    columnsShown().map((one) => h("option", { value: one.key }, `By ${nameOf(one).toLowerCase()}`)));
  sort.value = state.sort;
  const score = values.comsem && h("label", { class: "least" }, "score from ",
    h("input", { type: "number", min: 0, max: 1, step: 0.05, value: state.score, onchange: (event) => {
      state = { ...state, score: parseFloat(event.target.value) || 0 };
      refresh();
    } }));
  counter = h("p", { class: "counter", role: "status" });
  filters = h("p", { class: "filters" });
  return h("div", { class: "toolbar" }, search, show, sort, score, counter, filters);
}

// After the state has changed: order, address, and what is drawn.
function refresh() {
  arrange();
  tableAddress = addressOf(state);
  history.replaceState(null, "", `#${tableAddress}`);
  scrolledTo = 0;
  scroller.scrollTop = 0;
  showState();
  drawRows(true);
}

function showState() {
  counter.textContent = order.length === count ? `${whole(count)} features` : `${whole(order.length)} of ${whole(count)} features`;
  const isRange = state.from > START.from || state.to < START.to;
  filters.replaceChildren(...(isRange ? [h("button", { type: "button", class: "plain", onclick: () => {
    state = { ...state, from: START.from, to: START.to };
    refresh();
  } }, `on for ${percent(state.from, 2)} to ${percent(Math.min(1, state.to), 2)}  ✕`)] : []));
  document.getElementById("sort").value = state.sort;
  scroller.querySelector("thead").replaceChildren(head());
  scroller.querySelector("table").setAttribute("aria-rowcount", order.length + 1);
}

let range = [-1, -1];
function drawRows(isForced, isAll) {
  if (!scroller?.isConnected) return;
  const height = rowHeight();
  scrolledTo = scroller.scrollTop;
  const first = isAll ? 0 : Math.max(0, Math.floor(scrolledTo / height) - BEYOND);
  const end = Math.min(order.length, isAll ? PRINTED : Math.ceil((scrolledTo + scroller.clientHeight) / height) + BEYOND);
  if (!isForced && first === range[0] && end === range[1]) return;
  range = [first, end];
  const rows = [spacer(first * height)];
  for (let i = first; i < end; i++) rows.push(tableRow(order[i], i));
  rows.push(spacer(isAll ? 0 : (order.length - end) * height));
  if (!order.length) rows.push(h("tr", {}, h("td", { colspan: columnsInSight(), class: "nothing" }, "No feature is like that. ",
    h("button", { type: "button", class: "plain", onclick: () => { state = { ...START, show: "all" }; document.getElementById("search").value = ""; document.getElementById("show").value = "all"; refresh(); } }, "Show all"))));
  body.replaceChildren(...rows);
}

// A cell over more columns than there are to see would make columns of its own.
function columnsInSight() {
  return [...scroller.querySelectorAll("thead th")].filter((one) => one.offsetWidth > 0).length || 1;
}

function spacer(height) {
  const row = h("tr", { "aria-hidden": "true", class: "spacer" }, h("td"));
  row.firstChild.style.height = `${height}px`;
  row.hidden = !height;
  return row;
}

function tableRow(row, place) {
  const index = indexOf(row);
  const cells = columnsShown().map((one) => {
    if (one.key === "index") return h("th", { scope: "row", class: "col-index" }, h("a", { href: `#feature/${index}` }, String(index)));
    if (one.key === "tokens") return h("td", { class: "col-tokens" }, tokensCell(row));
    if (one.key === "phrase") return h("td", { class: "col-phrase" }, h("bdi", {}, plain(phraseOf(row) ?? "")));
    if (one.key === "promotes") return h("td", { class: "col-promotes" }, texts("up", row, 3).map((text) => chip(text)));
    const value = one.of(row);
    const text = h("span", { class: "value" }, one.show(value));
    if (one.key === "frequency") return h("td", { class: "num col-frequency" }, text, meter(value > 0 ? (Math.log10(value) + 6) / 6 : 0));
    return h("td", { class: `num col-${one.key}` }, text);
  });
  return h("tr", { "aria-rowindex": place + 2, onclick: (event) => {
    if (!event.target.closest("a") && !getSelection().toString()) go(`feature/${index}`);
  } }, cells);
}

// On a narrow screen the cell holds what has no column there.
function tokensCell(row) {
  const tokens = texts("topToken", row, 3).map((text) => chip(text));
  const more = phraseOf(row) ?? "";
  return [h("div", { class: "chips" }, tokens.length ? tokens : h("span", { class: "faint" }, "never fires here")),
    h("div", { class: "narrow-only" }, more ? h("bdi", {}, plain(more)) : texts("up", row, 3).map((text) => chip(text, { class: "token up" })))];
}

addEventListener("beforeprint", () => drawRows(true, true));
addEventListener("afterprint", () => drawRows(true));
