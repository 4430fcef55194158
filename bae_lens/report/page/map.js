// The map of decoder rows, on a canvas: thousands of points are too many for elements. The table says the same to a keyboard.

const MISSING = 65535;
const SHADES = { light: ["#440154", "#3b528b", "#21918c", "#3fa34d", "#b8860b"], dark: ["#b58cf0", "#7ea6f5", "#3ec9c0", "#7fdc6a", "#fde725"] };

function mapPanel() {
  if (!arrays.map) return null;
  const points = [];
  for (let row = 0; row < count; row++) {
    const [x, y] = part("map", row);
    if (x !== MISSING) points.push({ row, x: x / 65534, y: y / 65534, shade: Math.min(4, Math.max(0, Math.floor(Math.log10(arrays.frequency[row] || 1e-9) + 5))) });
  }
  if (points.length < 3) return null;
  const tip = h("p", { class: "tip", "aria-hidden": "true" }, "Point at a feature, click to open it.");
  let last = null;
  const holder = fitted((width) => {
    const height = 236;
    const canvas = h("canvas", { role: "img", "aria-label": `Map of the decoder rows of ${points.length} features; rows of like direction lie near each other`, class: "map" });
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const at = (p) => [8 + p.x * (width - 16), 8 + (1 - p.y) * (height - 16)];
    const paint = (chosen) => {
      const context = canvas.getContext("2d");
      const shades = SHADES[isDark() ? "dark" : "light"];
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      context.globalAlpha = points.length > 2000 ? 0.55 : 0.8;
      for (const p of points) {
        const [x, y] = at(p);
        context.fillStyle = shades[p.shade];
        if (points.length > 2000) { context.fillRect(x - 1.5, y - 1.5, 3, 3); continue; }
        context.beginPath();
        context.arc(x, y, 2.8, 0, 7);
        context.fill();
      }
      context.globalAlpha = 1;
      if (chosen) {
        const [x, y] = at(chosen);
        context.strokeStyle = isDark() ? "#fff" : "#000";
        context.lineWidth = 2;
        context.beginPath();
        context.arc(x, y, 6, 0, 7);
        context.stroke();
      }
    };
    const nearest = (event) => {
      const box = canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      let best = null;
      let distance = 14 ** 2;
      for (const p of points) {
        const [px, py] = at(p);
        const d = (px - x) ** 2 + (py - y) ** 2;
        if (d < distance) [best, distance] = [p, d];
      }
      return best;
    };
    canvas.addEventListener("pointermove", (event) => {
      const found = nearest(event);
      if (found === last) return;
      last = found;
      canvas.classList.toggle("pointing", Boolean(found));
      tip.textContent = found ? `#${indexOf(found.row)}  ${titleOf(found.row)}  (${percent(arrays.frequency[found.row], 2)})` : "Point at a feature, click to open it.";
      paint(found);
    });
    canvas.addEventListener("click", (event) => {
      const found = nearest(event);
      if (found) go(`feature/${indexOf(found.row)}`);
    });
    paint(null);
    return canvas;
  });
  const names = ["under 0.01 %", "to 0.1 %", "to 1 %", "to 10 %", "over 10 %"];
  return panel("Map of decoder rows", `${values.map === "umap" ? "UMAP of the rows, by cosine" : "Two directions in which the rows, at norm 1, differ most (PCA)"}; coloured by how often a feature fires.`, holder, tip,
    h("ul", { class: "legend" }, names.map((name, i) => h("li", {}, h("span", { class: `swatch shade-${i}` }), name))));
}
