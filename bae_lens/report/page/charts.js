// Small charts in SVG. Each has a label that says in words what it shows.

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => m >= rough * 0.999) || rough;
  const found = [];
  for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-9; x += step) found.push(Math.abs(x) < step / 1e6 ? 0 : x);
  return found;
}

function frame(width, height, margin, label) {
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, class: "chart" });
  const inner = { left: margin.left, top: margin.top, right: width - margin.right, bottom: height - margin.bottom };
  return { svg, inner };
}

const label = (x, y, text, attributes) => s("text", { x: x.toFixed(1), y: y.toFixed(1), ...attributes }, text);

// bars: [{ value, name, note, onpick, isMuted }], value 0 to max; names stand below every few bars.
function barChart({ width, height = 180, bars, title, xTitle, every = 1, format = whole }) {
  const { svg, inner } = frame(width, height, { left: 46, right: 8, top: 10, bottom: 38 }, title);
  const most = Math.max(1e-12, ...bars.map((bar) => bar.value));
  for (const y of ticks(0, most, 3)) {
    const at = inner.bottom - (y / most) * (inner.bottom - inner.top);
    svg.append(s("line", { x1: inner.left, x2: inner.right, y1: at, y2: at, class: "grid" }));
    svg.append(label(inner.left - 6, at + 4, format(y), { "text-anchor": "end" }));
  }
  const step = (inner.right - inner.left) / bars.length;
  bars.forEach((bar, i) => {
    const size = (bar.value / most) * (inner.bottom - inner.top);
    const x = inner.left + i * step;
    if (bar.value > 0) {
      const gap = Math.min(2, step * 0.2);
      const shape = s("rect", { x: x + gap / 2, y: inner.bottom - size, width: step - gap, height: Math.max(size, 1),
        rx: 1.5, class: bar.isMuted ? "bar muted" : "bar" });
      shape.append(s("title", {}, bar.note));
      svg.append(shape);
    }
    if (bar.onpick && bar.value > 0) {
      const hit = s("rect", { x, y: inner.top, width: step, height: inner.bottom - inner.top, class: "hit", onclick: bar.onpick });
      hit.append(s("title", {}, bar.note));
      svg.append(hit);
    }
    if (i % every === 0) svg.append(label(x + (every === 1 ? step / 2 : 0), inner.bottom + 14, bar.name, { "text-anchor": every === 1 ? "middle" : "start" }));
  });
  svg.append(s("line", { x1: inner.left, x2: inner.right, y1: inner.bottom, y2: inner.bottom, class: "axis" }));
  svg.append(label((inner.left + inner.right) / 2, height - 6, xTitle, { "text-anchor": "middle", class: "title" }));
  return svg;
}

// series: [{ name, points: [[x, y, opacity]], style }]; y may be null (a gap).
function lineChart({ width, height = 170, series, title, xTitle, yTitle, isLog = false, fromZero = true, marks = false, format = digits }) {
  const { svg, inner } = frame(width, height, { left: 50, right: 12, top: 22, bottom: 36 }, title);
  const all = series.flatMap((one) => one.points).filter((p) => isNumber(p[1]));
  if (!all.length) return h("p", { class: "note" }, "nothing to draw");
  const place = isLog ? Math.log2 : (x) => x;
  const xs = all.map((p) => place(p[0]));
  const ys = all.map((p) => p[1]);
  const x = { low: Math.min(...xs), high: Math.max(...xs) };
  const y = { low: fromZero ? Math.min(0, ...ys) : Math.min(...ys), high: Math.max(...ys) };
  if (x.low === x.high) { x.low -= 0.5; x.high += 0.5; }
  if (y.low === y.high) y.high = y.low + 1;
  const atX = (v) => inner.left + ((place(v) - x.low) / (x.high - x.low)) * (inner.right - inner.left);
  const atY = (v) => inner.bottom - ((v - y.low) / (y.high - y.low)) * (inner.bottom - inner.top);
  for (const v of ticks(y.low, y.high, 3)) {
    svg.append(s("line", { x1: inner.left, x2: inner.right, y1: atY(v), y2: atY(v), class: "grid" }));
    svg.append(label(inner.left - 6, atY(v) + 4, format(v), { "text-anchor": "end" }));
  }
  const marksX = isLog ? [...new Set(all.map((p) => p[0]))].sort((a, b) => a - b) : ticks(x.low, x.high, Math.max(2, width / 120));
  let lastAt = -Infinity;
  for (const v of marksX) {
    if (atX(v) - lastAt < 30) continue;
    lastAt = atX(v);
    const isLast = lastAt > inner.right - 14;
    svg.append(label(isLast ? width - 2 : lastAt, inner.bottom + 15, isLog ? String(v) : whole(v), { "text-anchor": isLast ? "end" : "middle" }));
  }
  svg.append(s("line", { x1: inner.left, x2: inner.right, y1: inner.bottom, y2: inner.bottom, class: "axis" }));
  series.forEach((one, number) => {
    const known = one.points.filter((p) => isNumber(p[1]));
    const path = known.map((p, i) => `${i ? "L" : "M"}${atX(p[0]).toFixed(1)} ${atY(p[1]).toFixed(1)}`).join("");
    const style = `series-${one.style ?? number}`;
    svg.append(s("path", { d: path, class: `line ${style}` }));
    if (marks || known.length === 1) for (const p of known) { // one point alone has no line
      svg.append(s("circle", { cx: atX(p[0]), cy: atY(p[1]), r: 4, class: `mark ${style}`, "fill-opacity": p[2] ?? 1 },
        s("title", {}, `${one.name}: ${format(p[1])} at ${p[0]}${p[3] ? `, ${p[3]}` : ""}`)));
    }
  });
  svg.append(label(4, 12, yTitle, { class: "title" }));
  svg.append(label((inner.left + inner.right) / 2, height - 4, xTitle, { "text-anchor": "middle", class: "title" }));
  return svg;
}

function legend(names) {
  return h("ul", { class: "legend" }, names.map((name, i) => h("li", {}, h("span", { class: `swatch series-${i}` }), name)));
}

// Charts are as wide as where they stand; they are drawn again when that changes.
const drawn = new Set();
function fitted(draw, least = 240) {
  const holder = h("div", { class: "holder" });
  const render = () => holder.replaceChildren(draw(Math.max(least, Math.floor(holder.clientWidth || 320))));
  drawn.add({ holder, render });
  queueMicrotask(() => { if (holder.isConnected) render(); });
  return holder;
}
function redraw() {
  for (const one of drawn) {
    if (one.holder.isConnected) one.render();
    else drawn.delete(one);
  }
}
