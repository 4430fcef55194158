// Elements, made without any HTML text: what a corpus or a model says can only ever become a text node or an attribute.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function panel(title, note, ...children) {
  return h("section", { class: "panel" }, h("h2", {}, title), note && h("p", { class: "note" }, note), ...children);
}

function say(text) {
  document.getElementById("said").textContent = text;
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "visually-hidden", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(`${what} copied`);
}

function copyButton(label, text, what) {
  const button = h("button", { type: "button", class: "plain", onclick: async () => {
    await copy(text(), what);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  } }, label);
  return button;
}

// Numbers in words.
const isNumber = (x) => typeof x === "number" && Number.isFinite(x);
const digits = (x, n = 3) => {
  if (!isNumber(x)) return "–";
  if (x !== 0 && (Math.abs(x) < 1e-4 || Math.abs(x) >= 1e6)) return x.toExponential(n - 1).replace("-", "−");
  const places = x === 0 ? 0 : Math.max(0, n - 1 - Math.floor(Math.log10(Math.abs(x))));
  return x.toFixed(Math.min(places, 8)).replace("-", "−");
};
const fixed = (x, n) => isNumber(x) ? x.toFixed(n).replace("-", "−") : "–";
const whole = (x) => isNumber(x) ? Math.round(x).toLocaleString("en-GB") : "–";
const percent = (x, n = 3) => isNumber(x) ? `${x === 0 ? "0" : digits(100 * x, n)} %` : "–";
const signed = (x, n = 2) => isNumber(x) ? `${x < 0 ? "−" : "+"}${digits(Math.abs(x), n)}` : "–";
