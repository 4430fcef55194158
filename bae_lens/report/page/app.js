// Views by address, the theme, and the keys.

const THEMES = ["auto", "light", "dark"];
const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
let current = null;

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  button.textContent = { auto: "◐", light: "☀", dark: "☾" }[theme];
  button.setAttribute("aria-label", `Theme: ${theme}`);
  button.title = `Theme: ${theme}`;
  button.dataset.now = theme;
  try { localStorage.setItem("bae-lens-theme", theme); } catch { /* a page from disk may have no storage */ }
  redraw();
}

function savedTheme() {
  try { return THEMES.includes(localStorage.getItem("bae-lens-theme")) ? localStorage.getItem("bae-lens-theme") : "auto"; } catch { return "auto"; }
}

function go(address) {
  location.hash = `#${address}`;
}

function show(view, kind, title, focus) {
  const main = document.getElementById("main-content");
  current = kind;
  document.body.dataset.view = kind;
  main.replaceChildren(view);
  document.title = `${title} · ${values.hook}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === (kind === "overview" ? "overview" : "features")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (focus) main.querySelector("h1")?.focus({ preventScroll: true });
}

function route(isFirst) {
  const [, name, rest] = location.hash.match(/^#?([a-z]*)[/?]?(.*)$/) ?? [];
  if (name === "main") return; // the link that skips to the content
  const focus = isFirst !== true;
  if (name === "feature") {
    const row = rowOfIndex.get(Number(rest));
    if (row === undefined || !/^\d+$/.test(rest)) return missing(rest, focus);
    show(featureView(row), "feature", `Feature ${indexOf(row)}`, focus);
    scrollTo(0, 0);
    return;
  }
  if (name === "features") {
    state = stateOf(rest);
    arrange();
    const at = addressOf(state) === tableAddress ? scrolledTo : 0;
    tableAddress = addressOf(state);
    show(tableView(), "features", "Features", focus);
    showState();
    drawRows(true);
    scrollTo(0, 0);
    scroller.scrollTop = at;
    drawRows(true);
    return;
  }
  show(overviewView(), "overview", "Overview", focus);
  scrollTo(0, 0);
}

function missing(what, focus) {
  show(h("div", { class: "view" }, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "No such feature"),
    h("p", { class: "lead" }, `This report has no page of feature ${plain(String(what)).slice(0, 40)}. `, h("a", { href: "#features" }, "All features")))), "missing", "No such feature", focus);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && isTyping) { event.target.blur(); return; }
  if (isTyping) return;
  if (event.key === "/") {
    event.preventDefault();
    (document.getElementById("search") ?? document.getElementById("jump")).focus();
  } else if (current === "feature") {
    const what = { ArrowRight: "next", j: "next", ArrowLeft: "previous", k: "previous" }[event.key];
    const scrolls = event.key.startsWith("Arrow") && event.target.closest("pre, .scroll");
    if (what && !scrolls) document.querySelector(`[data-step="${what}"]`)?.click();
    else if (event.key === "Escape") go(addressOf(state));
  }
}

function jump(event) {
  event.preventDefault();
  const input = document.getElementById("jump");
  const number = input.value.match(/^\s*#?(\d+)\s*$/);
  if (number && rowOfIndex.has(Number(number[1]))) go(`feature/${Number(number[1])}`);
  else go(addressOf({ ...START, show: "all", q: input.value.trim() }));
  input.value = "";
}

function begin(unpacked) {
  open(unpacked);
  state = { ...START };
  arrange();
  setTheme(savedTheme());
  document.getElementById("theme").addEventListener("click", (event) =>
    setTheme(THEMES[(THEMES.indexOf(event.currentTarget.dataset.now) + 1) % THEMES.length]));
  document.querySelector(".jump").addEventListener("submit", jump);
  addEventListener("hashchange", () => route());
  addEventListener("keydown", keys);
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { redraw(); drawRows(true); }, 120); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  route(true);
  document.documentElement.dataset.ready = "yes";
  (window.requestIdleCallback ?? setTimeout)(() => prepareSearch());
}

const block = document.getElementById("data");
if (typeof DecompressionStream === "undefined") {
  document.getElementById("waiting").textContent = "This browser is too old to unpack the page: one of 2023 or later is needed.";
} else {
  unpack(block.textContent).then((unpacked) => { block.remove(); begin(unpacked); }).catch((error) => {
    document.getElementById("waiting").textContent = `The page cannot be unpacked: ${error.message}`;
    throw error;
  });
}
