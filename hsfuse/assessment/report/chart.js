"use strict";
const hsfuseChart = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const svg = (name, attributes, parent, text) => {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const html = (name, className, parent, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const short = (v) => (v === null ? "-" : v !== 0 && Math.abs(v) < 1e-3 ? v.toExponential(2) : String(+v.toPrecision(4)));

  // Round steps of 1, 2 or 5 times a power of ten.
  const ticks = (low, high, count) => {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
    const out = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) out.push(+(i * step).toPrecision(12));
    return out;
  };

  // Lines end where values are missing and where bands were dropped: a gap is no measurement. They end, too, where
  // wavelengths step back: there another detector begins, which sees part of the same range with other pixels.
  const pieces = (x, y) => {
    const steps = x.slice(1).map((v, i) => v - x[i]), down = steps.filter((d) => d < 0).length > steps.length / 2 ? -1 : 1;
    const sizes = steps.map(Math.abs).sort((a, b) => a - b), gap = 4 * (sizes[sizes.length >> 1] || Infinity), out = [];
    let pen = false;
    for (let k = 0; k < x.length; k++) {
      if (y[k] === null) { pen = false; continue; }
      if (k && (steps[k - 1] * down < 0 || Math.abs(steps[k - 1]) > gap)) pen = false;
      if (!pen) out.push([]);
      out[out.length - 1].push(k);
      pen = true;
    }
    return out;
  };

  const quantile = (sorted, share) => sorted[Math.round(share * (sorted.length - 1))];

  // What sets the scale: values outside the shaded ranges, where there are any, without the few that lie far from the
  // rest. Noise in absorption and at its edge must not flatten the others.
  const span = (spec) => {
    const seen = (x) => !(spec.shade || []).some(([a, b]) => x >= a && x <= b);
    const known = spec.series.flatMap((s) => s.x.map((x, k) => [x, s.y[k]]).filter(([, y]) => y !== null));
    const clear = known.filter(([x]) => seen(x));
    const ys = (clear.length ? clear : known).map(([, y]) => y).sort((a, b) => a - b);
    if (!ys.length) return null;
    const low = quantile(ys, 0.03), high = quantile(ys, 0.97), room = spec.whole ? Infinity : 0.6 * (high - low) || Infinity;
    return [Math.max(ys[0], low - room), Math.min(ys[ys.length - 1], high + room)];
  };
  let charts = 0;

  // Files of numbers, made in the page: a table [header, ...rows] becomes a CSV file to save.
  const field = (v) => (v === null || v === undefined ? "" : /[",\n]/.test(v) ? `"${String(v).replaceAll('"', '""')}"` : String(v));
  function save(name, table) {
    const text = table.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n", link = html("a", "");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name.replace(/[^\w.-]+/g, "-") + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  function csvButton(parent, text, what, name, table) {
    const button = html("button", "csv", parent, text);
    button.type = "button";
    button.setAttribute("aria-label", what);
    button.addEventListener("click", () => save(name(), table()));
  }

  // The numbers of a chart: a row for each x of the series that share their x, a column for each series.
  function tableOf(spec) {
    const drawn = spec.series.filter((s) => s.flat === undefined), groups = new Map();
    for (const s of drawn) { const key = s.x.join(); groups.set(key, [...(groups.get(key) || []), s]); }
    const rows = [...groups.values()].flatMap((same) => same[0].x.map((x, k) => [x, ...drawn.map((s) => (same.includes(s) ? s.y[k] : null))]));
    if (groups.size > 1) rows.sort((a, b) => a[0] - b[0]);
    return [[spec.x, ...drawn.map((s) => s.name || spec.title || spec.y)], ...rows];
  }

  // Drawn again when its width changes: a part is unfolded, a phone turned.
  const specs = new WeakMap();
  const widths = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      const drawn = specs.get(target);
      if (contentRect.width && Math.abs(contentRect.width - drawn.width) > 1) chart(target, drawn.spec);
    }
  });

  // spec: title, x, y (axis labels), series [{name, x, y, colour, dash, marks, flat}], shade [[from, to]], zero, range,
  // file (name of its numbers as CSV), table (those, where they aren't the series')
  function chart(host, spec) {
    host.replaceChildren();
    specs.set(host, { spec, width: host.clientWidth });
    widths.observe(host);
    const W = Math.max(260, host.clientWidth || 640), H = spec.height || 300, L = 62, R = 12, T = 10, B = 42;
    if (spec.title) html("h3", "", host, spec.title);
    if (spec.series.length > 1) legend(host, spec.series);
    const xs = spec.series.flatMap((s) => s.x), limits = span(spec);
    if (!limits) { html("p", "readout", host, "no value is defined"); return; }
    let [x0, x1] = spec.xrange || [Math.min(...xs), Math.max(...xs)];
    let [y0, y1] = limits;
    if (spec.zero) { y0 = Math.min(0, y0); y1 = Math.max(0, y1); }
    if (x1 === x0) x1 = x0 + 1;
    const room = 0.05 * (y1 - y0 || Math.abs(y1) || 1);
    y1 += room;
    if (!spec.zero || y0 < 0) y0 -= room;
    const sx = (v) => L + ((v - x0) / (x1 - x0)) * (W - L - R), sy = (v) => H - B - ((v - y0) / (y1 - y0)) * (H - B - T);
    const names = spec.series.map((s) => s.name).filter(Boolean).join(", ");
    const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Chart of ${spec.title || spec.y || names} over ${spec.x}${names ? ": " + names : ""}` }, host);
    for (const [a, b] of spec.shade || []) {
      const from = Math.max(a, x0), to = Math.min(b, x1);
      if (to > from) svg("rect", { class: "shade", x: sx(from), y: T, width: sx(to) - sx(from), height: H - B - T }, root);
    }
    for (const v of ticks(y0, y1, H / 55)) {
      svg("line", { class: "gridline", x1: L, x2: W - R, y1: sy(v), y2: sy(v) }, root);
      svg("text", { x: L - 8, y: sy(v) + 4, "text-anchor": "end" }, root, short(v));
    }
    for (const v of ticks(x0, x1, W / 90)) {
      svg("line", { class: "axis", x1: sx(v), x2: sx(v), y1: H - B, y2: H - B + 5 }, root);
      svg("text", { x: sx(v), y: H - B + 19, "text-anchor": "middle" }, root, String(v));
    }
    svg("line", { class: "axis", x1: L, x2: W - R, y1: H - B, y2: H - B }, root);
    svg("text", { x: (L + W - R) / 2, y: H - 4, "text-anchor": "middle" }, root, spec.x);
    if (spec.y) svg("text", { x: 0, y: 0, transform: `translate(13 ${(T + H - B) / 2}) rotate(-90)`, "text-anchor": "middle" }, root, spec.y);
    const clip = `plot${++charts}`;
    svg("rect", { x: L, y: T, width: W - L - R + 2, height: H - B - T }, svg("clipPath", { id: clip }, root));
    const plot = svg("g", { "clip-path": `url(#${clip})` }, root);
    for (const s of spec.series) {
      draw(plot, s, sx, sy);
      if (s.flat === undefined) goesOn(root, s, sx, { x0, x1, y0, y1, top: T, bottom: H - B });
    }
    if (spec.at !== undefined && spec.at !== null) {
      svg("line", { class: "axis", x1: sx(spec.at), x2: sx(spec.at), y1: T, y2: H - B }, root);
      svg("text", { x: sx(spec.at) + (sx(spec.at) > W - 60 ? -6 : 6), y: H - B - 8, "text-anchor": sx(spec.at) > W - 60 ? "end" : "start" }, root, spec.mark || "kept");
    }
    readout(host, root, spec, sx, { W, H, T, B, x0, x1, L, R });
    if (spec.file) csvButton(host, "CSV", `Numbers of the ${root.getAttribute("aria-label").replace("Chart", "chart")}, as CSV`, () => spec.file, () => spec.table || tableOf(spec));
  }

  function draw(root, s, sx, sy) {
    const style = `stroke:var(--c-${s.colour});fill:none`;
    const path = () => pieces(s.x, s.y).map((run) => "M" + run.map((k) => `${sx(s.x[k]).toFixed(1)} ${sy(s.y[k]).toFixed(1)}`).join("L")).join("");
    if (s.flat !== undefined) svg("line", { x1: sx(s.x[0]), x2: sx(s.x[s.x.length - 1]), y1: sy(s.flat), y2: sy(s.flat), style, "stroke-width": 1.8, "stroke-dasharray": "7 4" }, root);
    else if (!s.marks) svg("path", { d: path(), style, "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-linecap": "round", "stroke-dasharray": s.dash || "none" }, root);
    else s.x.forEach((x, k) => { if (s.y[k] !== null) svg("rect", { x: sx(x) - 4.5, y: sy(s.y[k]) - 4.5, width: 9, height: 9, style: `fill:var(--c-${s.colour});stroke:var(--paper)` }, root); });
  }

  // An arrowhead at the frame where a curve leaves it, one for each time it does.
  function goesOn(root, s, sx, f) {
    for (const [sign, edge] of [[1, f.top], [-1, f.bottom]]) {
      const out = (k) => s.y[k] !== null && s.x[k] >= f.x0 && s.x[k] <= f.x1 && (sign > 0 ? s.y[k] > f.y1 : s.y[k] < f.y0);
      for (const run of runs(s.x.map((_, k) => k).filter(out))) {
        const far = run.reduce((a, b) => (sign * s.y[b] > sign * s.y[a] ? b : a)), x = sx(s.x[far]);
        const head = svg("path", { class: "goes-on", d: `M${x - 5} ${edge}l5 ${-7 * sign}l5 ${7 * sign}z`, style: `fill:var(--c-${s.colour})` }, root);
        svg("title", {}, head, `goes on to ${short(s.y[far])}`);
      }
    }
  }

  const runs = (ks) => ks.reduce((out, k, i) => (i && k === ks[i - 1] + 1 ? out[out.length - 1].push(k) : out.push([k]), out), []);

  function legend(host, series) {
    const list = html("ul", "key", host);
    for (const s of series) {
      const item = html("li", "", list), sample = svg("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, item);
      if (s.marks) svg("rect", { x: 10, y: 0.5, width: 9, height: 9, style: `fill:var(--c-${s.colour})` }, sample);
      else svg("line", { x1: 0, x2: 30, y1: 5, y2: 5, style: `stroke:var(--c-${s.colour})`, "stroke-width": 2.4, "stroke-dasharray": s.dash || "none" }, sample);
      item.append(s.name);
    }
  }

  function readout(host, root, spec, sx, f) {
    const line = html("p", "readout", host, " "), hair = svg("line", { class: "hair", y1: f.T, y2: f.H - f.B, visibility: "hidden" }, root);
    root.addEventListener("pointermove", (event) => {
      const box = root.getBoundingClientRect(), px = ((event.clientX - box.left) / box.width) * f.W;
      const at = f.x0 + ((px - f.L) / (f.W - f.L - f.R)) * (f.x1 - f.x0);
      if (at < f.x0 || at > f.x1) return;
      const told = spec.series.filter((s) => s.flat === undefined).map((s) => {
        const k = s.x.reduce((best, v, i) => (Math.abs(v - at) < Math.abs(s.x[best] - at) ? i : best), 0);
        return { at: s.x[k], text: `${s.name ? s.name + " " : ""}${short(s.y[k])}`, far: Math.abs(s.x[k] - at) > 0.05 * (f.x1 - f.x0) };
      }).filter((t) => !t.far);
      if (!told.length) return;
      hair.setAttribute("x1", sx(told[0].at)); hair.setAttribute("x2", sx(told[0].at)); hair.setAttribute("visibility", "visible");
      line.textContent = `${short(told[0].at)} ${(spec.x.split(", ")[1] || "")}: ${told.map((t) => t.text).join(" · ")}`;
    });
    root.addEventListener("pointerleave", () => { hair.setAttribute("visibility", "hidden"); line.textContent = " "; });
  }

  return { html, chart, save, csvButton, short };
})();
