// The first page.

function tile(name, value, note, extra) {
  return h("div", { class: `tile ${extra ?? ""}` }, h("dt", {}, name), h("dd", {}, h("strong", {}, value), note && h("span", {}, note)));
}

function tiles() {
  const o = values.overview;
  const kind = values.isNested ? "of which features are on" : isBae() ? "of the bits" : "of which features fire";
  const cost = isBae() ? `what the codes cost, at FVU ${fixed(o.bits_fvu, 4)}`
    : `which fire and how strongly (${fixed(o.magnitudes, 1)} of them), at FVU ${fixed(o.bits_fvu, 4)}`;
  return h("dl", { class: "tiles" },
    h("div", { class: "tile pair" },
      h("dt", {}, "FVU, with the entropy that it takes"),
      h("dd", {}, h("strong", {}, fixed(o.fvu, 4)), h("span", {}, "variance unexplained"),
        h("strong", {}, fixed(o.entropy, 1)), h("span", {}, `bits a token ${kind}`))),
    tile("Bits a token", fixed(o.bits, 1), isNumber(o.bits) ? cost : "too few documents to count"),
    o.ce ? tile("CE recovered", percent(o.ce.recovered_from_zero, 4), `against zero-ablation; ${percent(o.ce.recovered_from_mean, 4)} against mean-ablation`)
      : tile("CE recovered", "–", `not measured: ${values.withoutCe}`),
    tile("Active at a token", fixed(o.l0, 1), "features on the mean (L0)"),
    tile("Live features", whole(o.live), `of ${whole(values.features)}; ${whole(o.dead)} dead (${whole(o.stuck_at_one)} always on), ${whole(o.dense)} on for over 10 %`));
}

function frequencyPanel() {
  const edges = [];
  for (let e = -6; e < 0; e += 0.25) edges.push(e);
  const counts = edges.map(() => 0);
  let never = 0;
  for (const f of arrays.allFrequency) {
    if (f === 0) never++;
    else counts[Math.min(edges.length - 1, Math.max(0, Math.floor((Math.log10(f) + 6) / 0.25)))]++;
  }
  const first = Math.max(0, Math.floor(counts.findIndex((c) => c > 0) / 4) * 4);
  const bars = edges.slice(first).map((e, i) => {
    const [low, high] = [10 ** e, e > -0.26 ? 1.001 : 10 ** (e + 0.25)];
    const n = counts[first + i];
    return { value: n, name: e % 1 === 0 ? percent(low, 1) : "", isMuted: e >= -1,
      note: `${whole(n)} features on for ${percent(low, 2)} to ${percent(Math.min(1, high), 2)} of the tokens`,
      onpick: () => { go(`features?from=${low.toPrecision(6)}&to=${high.toPrecision(6)}`); } };
  });
  const title = `Histogram of firing frequencies: ${whole(values.overview.live)} live features, ${whole(never)} that never fire`;
  return panel("How often features fire", `${whole(never)} never do on these ${whole(values.overview.tokens)} tokens. Pale: on for over 10 %. A bar opens its features.`,
    fitted((width) => barChart({ width, height: 300, bars, title, xTitle: "share of tokens that a feature is on for", every: 4 })));
}

function start() {
  const live = [];
  for (let row = 0; row < count; row++) if (!isDead(row)) live.push(row);
  if (!live.length) return null;
  const hasScores = live.some((row) => isNumber(scoreOf(row)));
  let chosen;
  if (hasScores) chosen = live.filter((row) => isNumber(scoreOf(row))).sort((a, b) => scoreOf(b) - scoreOf(a) || arrays.frequency[b] - arrays.frequency[a]).slice(0, 16);
  else {
    const usable = live.filter((row) => arrays.events[row] >= 20);
    const ranked = (usable.length >= 8 ? usable : live).sort((a, b) => arrays.frequency[a] - arrays.frequency[b]);
    chosen = Array.from({ length: Math.min(8, ranked.length) }, (_, i) => ranked[Math.floor(((i + 0.5) / Math.min(8, ranked.length)) * ranked.length)]);
  }
  return panel("Some features", hasScores ? "Of the highest ComSem scores." : "At even steps from the rarest to the most frequent.",
    h("ul", { class: "starters" }, chosen.map((row) => h("li", {}, h("a", { href: `#feature/${indexOf(row)}` },
      h("span", { class: "number" }, `#${indexOf(row)}`), h("bdi", { class: "what" }, titleOf(row)),
      h("span", { class: "much" }, percent(arrays.frequency[row], 2)))))));
}

function lossPanel() {
  const ce = values.overview.ce;
  if (!ce) return null;
  const rows = [["as it is", ce.clean], ["with the SAE in place", ce.spliced], ["mean-ablated", ce.mean_ablated], ["zero-ablated", ce.zero_ablated]];
  const most = Math.max(...rows.map((row) => row[1]));
  return panel("What the model loses", "Cross-entropy loss in nats a token, the vectors at the hook point as said.",
    h("table", { class: "lines" }, h("thead", { class: "visually-hidden" }, h("tr", {}, h("th", { scope: "col" }, "vectors"), h("th", { scope: "col" }, "loss in nats"))),
      h("tbody", {}, rows.map(([name, loss], i) => h("tr", {}, h("th", { scope: "row" }, name),
        h("td", {}, meter(loss / most, i === 1), h("span", { class: "value" }, fixed(loss, 3))))))));
}

// A bar as a share of its cell; the width is set by script, as the policy allows no style attributes.
function meter(share, isStrong) {
  const bar = h("span", { class: isStrong ? "meter strong" : "meter", "aria-hidden": "true" }, h("span", {}));
  bar.firstChild.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return bar;
}

function settingsPanel() {
  const shown = values.recipe ? { ...values.recipe.sae, ...values.recipe.trainer, ...values.recipe } : values.config;
  const entries = Object.entries(shown).filter(([, v]) => v !== null && ["string", "number", "boolean"].includes(typeof v));
  return panel(values.recipe ? "Recipe" : "Configuration", values.recipe ? "As the run wrote it down." : "The recipe is not beside this SAE; this is its own configuration.",
    h("details", {}, h("summary", {}, `${entries.length} settings`),
      h("dl", { class: "settings" }, entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))))));
}

function namesPanel() {
  if (!values.comsem) return null;
  const scores = Object.values(values.comsem).map((one) => one.score).filter(isNumber);
  if (!scores.length) return null;
  const bins = Array.from({ length: 9 }, () => 0);
  for (const score of scores) bins[Math.min(8, Math.floor(score * 8 + 0.5))]++;
  const bars = bins.map((value, i) => ({ value, name: i % 2 ? "" : fixed(i / 8, 2), note: `${whole(value)} features with a score of about ${fixed(i / 8, 3)}` }));
  const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
  return panel("ComSem scores", `${whole(scores.length)} features scored, mean ${fixed(mean, 3)}.`,
    fitted((width) => barChart({ width, bars, title: `Histogram of ${scores.length} ComSem scores, mean ${fixed(mean, 3)}`, xTitle: "score" })));
}

function overviewView() {
  const bits = isBae() ? (values.bitsPerFeature > 1 ? `, ${values.bitsPerFeature} ${values.isNested ? "nested " : ""}bits each` : "") : "";
  const kind = isBae() ? "Binary Autoencoder" : `SAE (${values.architecture})`;
  return h("div", { class: "view" },
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, values.hook),
      h("p", { class: "lead" }, `${kind} of ${whole(values.features)} features${bits}, in `, h("bdi", { title: values.model }, plain(values.model.split("/").filter(Boolean).at(-1) ?? values.model)), ". Measured on ",
        h("strong", {}, `${whole(values.overview.tokens)} tokens`), ": ", h("bdi", {}, plain(values.source)), ".",
        values.isCut && " The code is so dense that only the first tokens were read.",
        count < values.features && ` ${whole(count)} of the features are shown.`)),
    tiles(),
    h("div", { class: "panels" }, frequencyPanel(), mapPanel(), start(),
      h("div", { class: "stack" }, lossPanel(), namesPanel(), settingsPanel()), curvesPanel(), entropyPanel()),
    comparePanel(),
    h("footer", {}, `Made by bae_lens ${values.version}. This page is one file and asks the network for nothing.`));
}
