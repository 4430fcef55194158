// The page of a feature.

function featureView(row) {
  const index = indexOf(row);
  const name = named(row);
  const [before, after] = neighbours(row);
  const head = h("div", { class: "head feature-head" },
    h("div", {}, h("h1", { tabindex: "-1" }, `Feature ${index}`),
      name?.phrase && h("p", { class: "phrase" }, h("bdi", {}, plain(name.phrase)))),
    h("div", { class: "buttons" },
      step("previous", "←", before), step("next", "→", after),
      copyButton("Copy link", () => location.href.replace(/#.*/, `#feature/${index}`), "Link"),
      h("a", { class: "plain", href: `#${addressOf(state)}` }, "All features")));
  return h("div", { class: "view" }, head, figures(row, name), notes(row, name),
    h("div", { class: "columns" },
      h("div", { class: "contexts" }, contextsPanel(row)),
      h("div", { class: "side" }, tokensPanel(row), promotedPanel(row), togetherPanel(row), positionPanel(row), histogramPanel(row), snippetPanel(row))));
}

// The features before and after this one in the table as it is now arranged, else by number.
function neighbours(row) {
  const place = order.indexOf(row);
  const list = place < 0 ? null : order;
  return list ? [list[place - 1], list[place + 1]] : [row > 0 ? row - 1 : undefined, row + 1 < count ? row + 1 : undefined];
}

function step(what, sign, row) {
  if (row === undefined) return h("span", { class: "plain off", "aria-hidden": "true" }, sign);
  return h("a", { class: "plain", href: `#feature/${indexOf(row)}`, "data-step": what, "aria-label": `The ${what} feature, ${indexOf(row)}`, title: `The ${what} feature (${sign})` }, sign);
}

function figures(row, name) {
  const found = [["on for", percent(arrays.frequency[row]), "of the tokens"]];
  if (isBae()) found.push(["prior", percent(arrays.prior[row]), "when it was trained"]);
  found.push(isBae() ? ["burstiness", fixed(arrays.burstiness[row], 3), "log2, the highest met"] : ["highest", digits(arrays.burstiness[row]), "activation met"]);
  found.push(["cost", `${digits(arrays.bits[row])} bits`, `a token on the mean${isBae() ? "" : ", whether it fires"}`]);
  found.push([arrays.isInverted[row] ? "when it is off" : "when it is on", `${digits(arrays.surprise[row])} bits`, "each time"]);
  if (name?.score !== null && name?.score !== undefined) {
    const control = isNumber(name.shuffled) ? `; shuffled ${fixed(name.shuffled, 2)}` : "";
    found.push(["ComSem score", fixed(name.score, 2), `${fixed(name.low, 2)} to ${fixed(name.high, 2)} (95 %)${control}`]);
  }
  for (const kind of ["detection", "fuzzing"]) if (isNumber(name?.[kind])) found.push([kind, fixed(name[kind], 2), "balanced accuracy"]);
  return h("dl", { class: "tiles small" }, found.map(([what, value, note]) => tile(what, value, note)));
}

function notes(row, name) {
  const found = [];
  if (arrays.isInverted[row]) found.push("This feature is on most of the time. It says something where it is off: that is what is marked below.");
  if (arrays.frequency[row] === 0) found.push("This feature is dead: it is off at every token that was read.");
  if (arrays.frequency[row] === 1) found.push("This feature is dead: it is on at every token that was read.");
  if (name && name.status !== "scored") found.push(`ComSem: ${name.status}${name.reason ? `, ${plain(String(name.reason))}` : ""}.`);
  return found.map((text) => h("p", { class: "notice" }, text));
}

function contextsPanel(row) {
  const places = [...part("context", row)];
  const [top, random] = [places.slice(0, values.top), places.slice(values.top)].map((list) => list.map((n, i) => [n, i]).filter(([n]) => n));
  if (!top.length) return panel("Contexts", "", h("p", { class: "note" }, "There is none: it never leaves its usual value on these tokens."));
  const isOneBit = isBae() && values.bitsPerFeature === 1;
  const by = isBae() ? "by burstiness" : "by activation";
  const alone = values.isAlone ? " The activations are not of the tokens around these." : "";
  const note = isOneBit ? "Every place is equally bursty; first those where no other feature is burstier." : "The strongest places first.";
  const list = (found, from) => h("ol", { class: "context-list" }, found.map(([number, i]) => context(row, number - 1, i + from)));
  return [panel(`Contexts ${by}`, note + alone, list(top, 0)),
    random.length ? panel("Contexts at random", `Of the ${whole(arrays.events[row])} places, some others by lot.`, list(random, values.top)) : null];
}

function context(row, focus, place) {
  const around = values.around;
  const window = 2 * around + 1;
  const contexts = part("context", row).length;
  const from = (row * contexts + place) * window;
  const pieces = [];
  for (let j = 0; j < window; j++) {
    const at = focus - around + j;
    if (at < 0 || at >= arrays.text.length || arrays.run[at] !== arrays.run[focus]) continue;
    pieces.push({ text: values.strings[arrays.text[at]], strength: arrays.strength[from + j], isFocus: at === focus });
  }
  // The later tokens of a character have no text of their own: what they would be marked with goes to its first.
  for (let i = pieces.length - 1; i > 0; i--) {
    if (pieces[i].text !== "") continue;
    pieces[i - 1].strength = Math.max(pieces[i - 1].strength, pieces[i].strength);
    pieces[i - 1].isFocus ||= pieces[i].isFocus;
  }
  const text = h("bdi", { class: "text" });
  for (const piece of pieces) {
    if (!piece.strength && !piece.isFocus) { text.append(inline(piece.text)); continue; }
    const isBlank = piece.text.trim() === "";
    if (/^ /.test(piece.text) && !isBlank) text.append(" ");
    const mark = h("mark", { class: piece.isFocus ? "focus" : null, title: isOneOrZero() ? null : `${percent(piece.strength / 255, 2)} of the highest` },
      isBlank ? visible(piece.text) : inline(piece.text).replace(/^ +/, ""));
    mark.style.setProperty("--strength", (0.25 + 0.75 * (piece.strength / 255)).toFixed(2));
    text.append(mark);
  }
  return h("li", {}, text, h("span", { class: "where" }, `document ${arrays.document[focus]}, position ${arrays.position[focus]}`));
}

const isOneOrZero = () => isBae() && values.bitsPerFeature === 1;

function tokensPanel(row) {
  const numbers = part("topToken", row);
  const found = [...numbers].map((number, i) => [number, i]).filter(([number]) => number);
  if (!found.length) return null;
  const counts = part("topCount", row);
  const shares = part("topShare", row);
  const events = arrays.events[row];
  return panel(arrays.isInverted[row] ? "Off on" : "Fires on", null, h("table", { class: "lines" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "token"), h("th", { scope: "col" }, "share of its firing"), h("th", { scope: "col", class: "num" }, "of the token"))),
    h("tbody", {}, found.map(([number, i]) => h("tr", {}, h("th", { scope: "row" }, chip(textOf(number))),
      h("td", {}, meter(counts[i] / events), h("span", { class: "value" }, percent(counts[i] / events, 2))),
      h("td", { class: "num" }, percent(shares[i], 2)))))));
}

function promotedPanel(row) {
  if (!arrays.up) return panel("Promoted tokens", null, h("p", { class: "note" }, `Not known: ${values.withoutPromoted}.`));
  const most = Math.max(Math.abs(part("upBy", row)[0]), Math.abs(part("downBy", row)[0]), 1e-9);
  const side = (title, kind) => h("div", {}, h("h3", {}, title), h("ol", { class: `promoted ${kind}` }, [...part(kind, row)].map((number, i) => {
    const by = part(`${kind}By`, row)[i];
    return h("li", {}, chip(textOf(number)), meter(Math.abs(by) / most), h("span", { class: "value" }, signed(by)));
  })));
  return panel("Promoted and suppressed tokens", `What one unit of its decoder row adds to the logits by itself${values.isScaled ? "" : ", up to a scale: the final norm's"}.`,
    h("div", { class: "sides" }, side("Promotes", "up"), side("Suppresses", "down")));
}

function featureLink(index) {
  const row = rowOfIndex.get(index);
  const title = row === undefined ? "" : titleOf(row);
  const text = [h("span", { class: "number" }, `#${index}`), h("bdi", { class: "what" }, title)];
  return row === undefined ? h("span", { class: "to" }, text) : h("a", { class: "to", href: `#feature/${index}` }, text);
}

function togetherPanel(row) {
  const list = (kind, value, note) => [...part(kind, row)].map((n, i) => [n - 1, i]).filter(([index]) => index >= 0)
    .map(([index, i]) => h("li", {}, featureLink(index), h("span", { class: "value", title: note(i) }, value(i))));
  const partners = list("partner", (i) => fixed(part("phi", row)[i], 2), (i) => `${whole(part("both", row)[i])} tokens together`);
  const near = list("near", (i) => fixed(part("cosine", row)[i], 2), () => "cosine of the decoder rows");
  if (!partners.length && !near.length) return null;
  return panel("Together with", null,
    partners.length ? [h("h3", {}, "At the same tokens, by correlation"), h("ul", { class: "features-list" }, partners)] : null,
    near.length ? [h("h3", {}, "Nearest decoder rows, by cosine"), h("ul", { class: "features-list" }, near)] : null);
}

function positionPanel(row) {
  const tokens = values.positionTokens;
  if (!arrays.events[row] || tokens.length < 2) return null;
  const counts = part("atPosition", row);
  const bars = tokens.map((n, i) => ({ value: n ? counts[i] / n : 0, name: i === 0 ? "1" : String(2 ** i),
    note: `positions ${i ? 2 ** i : 0} to ${2 ** (i + 1) - 1}: ${whole(counts[i])} of ${whole(n)} tokens` }));
  return panel("Where in a text", null, fitted((width) => barChart({ width, height: 150, bars, xTitle: "position, from",
    title: "Share of tokens that the feature fires on, by position", format: (x) => percent(x, 2), every: 1 }), 200));
}

function histogramPanel(row) {
  if (!arrays.histogram || !arrays.events[row]) return null;
  const counts = part("histogram", row);
  const high = arrays.highest[row];
  const bars = [...counts].map((value, i) => ({ value, name: i % 5 === 0 ? digits((i / counts.length) * high, 2) : "",
    note: `${whole(value)} tokens with ${digits((i / counts.length) * high, 2)} to ${digits(((i + 1) / counts.length) * high, 2)}` }));
  return panel("How strongly", null, fitted((width) => barChart({ width, height: 150, bars, xTitle: "activation where it is on", every: 5,
    title: "Histogram of activations where the feature is on" }), 200));
}

function snippet(row) {
  const text = (x) => JSON.stringify(x);
  const strength = isNumber(arrays.meanActivation[row]) ? 4 * arrays.meanActivation[row] : 4;
  return [
    "import bae_lens", "",
    `model = bae_lens.load_model(${text(values.model)})`,
    `sae = bae_lens.load_sae(${text(values.path)}, hook_name=${text(values.hook)})`,
    `with bae_lens.steer(model, sae, {${indexOf(row)}: ${Number(strength.toPrecision(3))}}):`,
    '    print(model.generate("Once upon a time", max_new_tokens=20, verbose=False))', "",
  ].join("\n");
}

function snippetPanel(row) {
  return panel("Steer with it", "Four times what it is where it is on, added at every token.",
    h("pre", { tabindex: "0", role: "region", "aria-label": "Code that steers with this feature" }, h("code", {}, snippet(row))),
    copyButton("Copy the code", () => snippet(row), "Code"));
}
