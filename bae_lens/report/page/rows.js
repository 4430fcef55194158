// Which features the table shows, in which order. The state is in the address, so that a link shows the same table.

const COLUMNS = [
  { key: "index", name: "Feature", number: true, of: (row) => indexOf(row), upFirst: true },
  { key: "tokens", name: "Fires on", of: (row) => texts("topToken", row, 1)[0] ?? "", upFirst: true },
  { key: "phrase", name: "Phrase", of: (row) => phraseOf(row) ?? "", upFirst: true, when: () => values.comsem },
  { key: "score", name: "Score", number: true, of: scoreOf, show: (x) => fixed(x, 2), when: () => values.comsem },
  { key: "promotes", name: "Promotes", of: (row) => texts("up", row, 1)[0] ?? "", upFirst: true, when: () => arrays.up },
  { key: "frequency", name: "Frequency", number: true, of: (row) => arrays.frequency[row], show: (x) => percent(x, 3) },
  { key: "prior", name: "Prior", number: true, of: (row) => arrays.prior[row], show: (x) => percent(x, 3), when: isBae },
  { key: "burstiness", name: () => (isBae() ? "Burstiness" : "Highest"), number: true, of: (row) => arrays.burstiness[row], show: (x) => fixed(x, isBae() ? 3 : 2) },
  { key: "bits", name: "Bits a token", number: true, of: (row) => arrays.bits[row], show: (x) => digits(x, 3) },
];
const column = (key) => COLUMNS.find((one) => one.key === key);
const columnsShown = () => COLUMNS.filter((one) => !one.when || one.when());
const nameOf = (one) => (typeof one.name === "function" ? one.name() : one.name);

const KINDS_SHOWN = {
  all: ["All features", () => true],
  live: ["Live", (row) => !isDead(row)],
  dead: ["Dead", isDead],
  dense: ["Dense (over 10 %)", isDense],
  rare: ["Rare (under 0.1 %)", (row) => !isDead(row) && arrays.frequency[row] < 0.001],
  named: ["Named", (row) => phraseOf(row) !== null],
};

const START = { q: "", show: "live", sort: "index", down: false, from: 0, to: 2, score: 0 };
let state = { ...START };
let order = [];

function stateOf(query) {
  const given = new URLSearchParams(query);
  const number = (name) => { const x = parseFloat(given.get(name)); return Number.isFinite(x) ? x : START[name]; };
  const sort = given.get("sort") ?? "";
  const key = sort.replace(/^-/, "");
  return {
    q: given.get("q") ?? "",
    show: Object.hasOwn(KINDS_SHOWN, given.get("show") ?? "") ? given.get("show") : START.show,
    sort: columnsShown().some((one) => one.key === key) ? key : START.sort,
    down: sort.startsWith("-"),
    from: number("from"), to: number("to"), score: number("score"),
  };
}

function addressOf(wanted) {
  const given = new URLSearchParams();
  if (wanted.q) given.set("q", wanted.q);
  if (wanted.show !== START.show) given.set("show", wanted.show);
  if (wanted.sort !== START.sort || wanted.down) given.set("sort", (wanted.down ? "-" : "") + wanted.sort);
  for (const name of ["from", "to", "score"]) if (wanted[name] !== START[name]) given.set(name, String(wanted[name]));
  return given.toString() ? `features?${given}` : "features";
}

// What is missing comes last in either direction; equals stay in the order of their numbers.
function sortRows(found) {
  const { of, number } = column(state.sort);
  const sign = state.down ? -1 : 1;
  if (number) {
    const keys = new Float64Array(count);
    for (const row of found) { const x = of(row); keys[row] = isNumber(x) ? sign * x : Infinity; }
    found.sort((a, b) => (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : a - b));
    return;
  }
  const keys = [];
  for (const row of found) keys[row] = of(row);
  found.sort((a, b) => (keys[a] === "") - (keys[b] === "") || sign * ((keys[a] > keys[b]) - (keys[a] < keys[b])) || a - b);
}

function arrange() {
  const terms = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const only = state.q.match(/^\s*#?(\d+)\s*$/);
  const kept = KINDS_SHOWN[state.show][1];
  const found = [];
  for (let row = 0; row < count; row++) {
    const f = arrays.frequency[row];
    if (f < state.from || f >= state.to) continue;
    if (state.score > 0 && !(scoreOf(row) >= state.score)) continue;
    if (only ? !(indexOf(row) === Number(only[1]) || (kept(row) && haystack(row).includes(only[1])))
      : !kept(row) || !terms.every((term) => haystack(row).includes(term))) continue;
    found.push(row);
  }
  if (state.sort !== "index" || state.down) sortRows(found);
  if (only) found.sort((a, b) => (indexOf(b) === Number(only[1])) - (indexOf(a) === Number(only[1])));
  order = found;
}
