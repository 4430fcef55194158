// Training curves, the entropy by position, and the comparison's table.

const CURVES = { fvu: "FVU", entropy: "entropy, bits", l0: "L0", live: "live", dense: "dense", loss: "loss" };

function curvesPanel() {
  const splits = Object.entries(values.curves ?? {});
  if (!splits.length) return null;
  const names = Object.keys(CURVES).filter((name) => splits.some(([, rows]) => rows[name]));
  const charts = names.map((name) => {
    const series = splits.filter(([, rows]) => rows[name]).map(([split, rows]) => ({
      name: split, style: split === "train" ? 0 : 1, points: rows.step.map((step, i) => [step, rows[name][i]]) }));
    const last = series[0].points.at(-1);
    return fitted((width) => lineChart({ width, height: 150, series, xTitle: "step", yTitle: CURVES[name],
      title: `${CURVES[name]} by training step, at last ${digits(last[1])}` }), 200);
  });
  return h("section", { class: "panel wide" }, h("h2", {}, "Training"),
    h("p", { class: "note" }, "Read the entropy together with the FVU: either alone is easy to have."),
    splits.length > 1 && legend(splits.map(([split]) => (split === "train" ? "minibatches" : "validation"))),
    h("div", { class: "multiples" }, charts));
}

function entropyPanel() {
  if (!values.entropy?.length) return null;
  const kinds = [...new Set(values.entropy.map((row) => row.bae))];
  const hooks = [...new Set(values.entropy.map((row) => row.hook))];
  return h("section", { class: "panel wide" }, h("h2", {}, "Entropy by position"),
    h("p", { class: "note" }, "Marginal entropy, bits a token; a pale marker is an entropy that buys little (opacity: 1 − FVU)."),
    legend(hooks),
    h("div", { class: "multiples two" }, kinds.map((kind) => h("figure", {}, h("figcaption", {}, kind === "of the cell" ? "a BAE for each hook point and position" : "one BAE for each hook point"),
      fitted((width) => lineChart({ width, height: 220, isLog: true, marks: true, xTitle: "position, tokens after BOS", yTitle: "bits a token",
        title: `Entropy by position at ${hooks.length} hook points`,
        series: hooks.map((hook, i) => ({ name: hook, style: i % 6, points: values.entropy.filter((row) => row.bae === kind && row.hook === hook)
          .sort((a, b) => a.position - b.position).map((row) => [row.position, row.entropy, Math.max(0.15, 1 - row.fvu), `FVU ${fixed(row.fvu, 3)}`]) }))
          .filter((one) => one.points.length) }))))));
}

const FIGURES = {
  fvu: ["FVU", (x) => fixed(x, 4)], bits: ["bits a token", (x) => fixed(x, 1)], bits_fvu: ["at FVU", (x) => fixed(x, 4)],
  ce_from_zero: ["CE recovered (zero)", (x) => percent(x, 4)], ce_from_mean: ["(mean)", (x) => percent(x, 4)],
  l0: ["L0", (x) => fixed(x, 1)], live: ["live", whole], dead: ["dead", whole], dense: ["dense", whole],
};

function comparePanel() {
  if (!values.compare?.lines.length) return null;
  const lines = [...values.compare.lines].sort((a, b) => (a.width > b.width) - (a.width < b.width));
  const names = values.compare.figures.filter((name) => lines.some((line) => line.figures[name]));
  const cell = (line, name) => {
    const found = line.figures[name];
    if (!found) return h("td", {}, "");
    const [mean, low, high] = found;
    const show = FIGURES[name][1];
    return h("td", {}, show(mean), line.seeds > 1 && high > low && h("small", {}, ` ${show(low)} to ${show(high)}`));
  };
  return h("section", { class: "panel" }, h("h2", {}, "Beside other methods"),
    h("p", { class: "note" }, "Same activations, held out; mean over seeds with the least and the most. Bits mean nothing without the FVU that they buy."),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Comparison" }, h("table", { class: "compare" },
      h("thead", {}, h("tr", {}, ["method", "width", "setting"].map((name) => h("th", { scope: "col" }, name)),
        names.map((name) => h("th", { scope: "col", class: "num" }, FIGURES[name][0])))),
      h("tbody", {}, lines.map((line) => h("tr", { class: line.family === "bae" ? "own" : null },
        h("th", { scope: "row" }, line.method), h("td", { class: "left" }, line.width), h("td", { class: "left" }, line.setting), names.map((name) => cell(line, name))))))));
}
