"use strict";
(() => {
  const NS = "http://www.w3.org/2000/svg";
  const LOOK = { fused: {}, LRHSI: { dash: "7 4" }, MSI: { marks: true }, reference: { dash: "2 3" } };
  const SPARE = ["fused", "LRHSI", "MSI", "4", "5", "6", "reference"];

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

  // Lines end where values are missing and where bands were dropped: a gap is no measurement.
  const path = (x, y, sx, sy, order) => {
    const steps = order.slice(1).map((k, i) => x[k] - x[order[i]]).sort((a, b) => a - b);
    const gap = 4 * (steps[steps.length >> 1] || Infinity);
    let d = "", pen = false, last = 0;
    for (const k of order) {
      if (y[k] === null) { pen = false; continue; }
      d += (pen && x[k] - last <= gap ? "L" : "M") + sx(x[k]).toFixed(1) + " " + sy(y[k]).toFixed(1);
      pen = true; last = x[k];
    }
    return d;
  };

  // What sets the scale: values outside the shaded ranges, where there are any. Noise in absorption must not flatten the rest.
  const heights = (spec) => {
    const seen = (x) => !(spec.shade || []).some(([a, b]) => x >= a && x <= b);
    const known = spec.series.flatMap((s) => s.x.map((x, k) => [x, s.y[k]]).filter(([, y]) => y !== null));
    const clear = known.filter(([x]) => seen(x));
    return (clear.length ? clear : known).map(([, y]) => y);
  };
  let charts = 0;

  // spec: title, x, y (axis labels), series [{name, x, y, colour, dash, marks, flat}], shade [[from, to]], zero, range
  function chart(host, spec) {
    host.replaceChildren();
    const W = Math.max(260, host.clientWidth || 640), H = spec.height || 300, L = 62, R = 12, T = 10, B = 42;
    if (spec.title) html("h4", "", host, spec.title);
    if (spec.series.length > 1) legend(host, spec.series);
    const xs = spec.series.flatMap((s) => s.x), ys = heights(spec);
    if (!ys.length) { html("p", "readout", host, "no value is defined"); return; }
    let [x0, x1] = spec.xrange || [Math.min(...xs), Math.max(...xs)];
    let [y0, y1] = spec.range || [Math.min(...ys), Math.max(...ys)];
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
    svg("rect", { x: L, y: T - 5, width: W - L - R + 5, height: H - B - T + 5 }, svg("clipPath", { id: clip }, root));
    const plot = svg("g", { "clip-path": `url(#${clip})` }, root);
    for (const s of spec.series) draw(plot, s, sx, sy);
    if (spec.at !== undefined && spec.at !== null) {
      svg("line", { class: "axis", x1: sx(spec.at), x2: sx(spec.at), y1: T, y2: H - B }, root);
      svg("text", { x: sx(spec.at) + (sx(spec.at) > W - 60 ? -6 : 6), y: H - B - 8, "text-anchor": sx(spec.at) > W - 60 ? "end" : "start" }, root, "kept");
    }
    readout(host, root, spec, sx, { W, H, T, B, x0, x1, L, R });
  }

  function draw(root, s, sx, sy) {
    const order = s.x.map((_, k) => k).sort((a, b) => s.x[a] - s.x[b]);
    const style = `stroke:var(--c-${s.colour});fill:none`;
    if (s.flat !== undefined) svg("line", { x1: sx(s.x[0]), x2: sx(s.x[s.x.length - 1]), y1: sy(s.flat), y2: sy(s.flat), style, "stroke-width": 1.8, "stroke-dasharray": "7 4" }, root);
    else if (!s.marks) svg("path", { d: path(s.x, s.y, sx, sy, order), style, "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-dasharray": s.dash || "none" }, root);
    else for (const k of order) if (s.y[k] !== null) svg("rect", { x: sx(s.x[k]) - 4.5, y: sy(s.y[k]) - 4.5, width: 9, height: 9, style: `fill:var(--c-${s.colour});stroke:var(--paper)` }, root);
  }

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

  function slider(file, pictures) {
    const box = file.querySelector(".compare");
    if (!box) return;
    const stage = box.querySelector(".stage"), wipe = box.querySelector(".wipe");
    const picks = ["left", "right", "kind"].map((name) => file.querySelector(`.pick-${name}`));
    const show = () => {
      const [left, right, kind] = picks.map((p) => p.value), images = pictures[kind];
      for (const [side, name] of [["left", left], ["right", right]]) {
        const image = stage.querySelector(`.${side}`), there = images[name];
        image.style.visibility = there ? "visible" : "hidden";
        if (there) { image.src = there.src; image.alt = `${name}, ${kind}`; }
        stage.querySelector(`.tag-${side}`).textContent = there ? name : `${name} has no such bands`;
      }
      const main = images[right] || images[left] || images.fused;
      box.querySelector(".caption").textContent = `${main.caption}. LRHSI, fused and reference share one stretch (1st to 99th percentile of the fused cube).`;
      const picked = file.querySelector(".picker img");
      if (picked) { picked.src = images.fused.src; picked.alt = `Fused cube, ${kind}`; }
    };
    picks.forEach((p) => p.addEventListener("change", show));
    const move = () => stage.style.setProperty("--cut", `${wipe.value}%`);
    wipe.addEventListener("input", move);
    move();
    flicker(file.querySelector(".flicker"), stage, move);
  }

  // Whole images in turn: the eye sees what moves.
  function flicker(button, stage, still) {
    let timer = null, left = true;
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(timer === null));
      if (timer !== null) { clearInterval(timer); timer = null; still(); return; }
      timer = setInterval(() => { left = !left; stage.style.setProperty("--cut", left ? "100%" : "0%"); }, 700);
    });
  }

  const decode = (image) => {
    const bytes = Uint8Array.from(atob(image.data), (c) => c.charCodeAt(0)), view = new DataView(bytes.buffer), bands = image.x.length;
    return (k) => image.x.map((_, b) => {
      const v = view.getInt16(2 * (k * bands + b), true);
      return v === -32768 ? null : v * image.step;
    });
  };

  function spectra(file, data) {
    const s = data.spectra, box = file.querySelector(".spectra");
    if (!s || !box) return;
    const picker = box.querySelector(".picker"), where = box.querySelector(".where"), plot = box.querySelector(".plot");
    const read = Object.fromEntries(Object.entries(s.images).map(([name, image]) => [name, decode(image)]));
    const place = (node, k) => { node.style.left = `${(100 * (s.cols[k] + 0.5)) / s.width}%`; node.style.top = `${(100 * (s.rows[k] + 0.5)) / s.height}%`; };
    const buttons = s.chosen.map((k, i) => {
      const letter = String.fromCharCode(65 + i);
      place(html("span", "mark", picker, letter), k);
      const button = html("button", "", box.querySelector(".points"), letter);
      button.type = "button";
      button.addEventListener("click", () => select(k));
      return button;
    });
    const here = html("span", "mark here", picker);
    let current = s.chosen.length ? s.chosen[0] : 0;
    function select(k) {
      current = k;
      place(here, k);
      buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(s.chosen[i] === k)));
      const series = ["reference", "LRHSI", "fused", "MSI"].filter((n) => read[n]).map((name) => ({ name, x: s.images[name].x, y: read[name](k), colour: name, ...LOOK[name] }));
      chart(plot, { x: data.axis, y: "value", series: series.filter((t) => t.y.some((v) => v !== null)), shade: data.absorption, zero: true, height: 360 });
      const letter = s.chosen.indexOf(k);
      where.textContent = `Point ${letter >= 0 ? String.fromCharCode(65 + letter) + ", " : ""}row ${s.rows[k]}, column ${s.cols[k]}.`;
    }
    const nearest = (row, col, allowed) => {
      let best = current, least = Infinity;
      s.rows.forEach((r, k) => {
        const d = (r - row) ** 2 + (s.cols[k] - col) ** 2;
        if (d < least && (!allowed || allowed(k))) { least = d; best = k; }
      });
      return best;
    };
    picker.addEventListener("click", (event) => {
      const b = picker.getBoundingClientRect();
      select(nearest(((event.clientY - b.top) / b.height) * s.height - 0.5, ((event.clientX - b.left) / b.width) * s.width - 0.5));
    });
    const moves = { ArrowUp: (k) => s.rows[k] < s.rows[current], ArrowDown: (k) => s.rows[k] > s.rows[current], ArrowLeft: (k) => s.cols[k] < s.cols[current], ArrowRight: (k) => s.cols[k] > s.cols[current] };
    picker.addEventListener("keydown", (event) => {
      if (!moves[event.key]) return;
      event.preventDefault();
      select(nearest(s.rows[current], s.cols[current], moves[event.key]));
    });
    select(current);
  }

  for (const file of document.querySelectorAll("article.file")) {
    const data = JSON.parse(file.querySelector(".data").textContent);
    slider(file, data.pictures);
    spectra(file, data);
    for (const [name, drawn] of [[".curves", data.curves], [".reduced-curves", data.reduced]]) {
      for (const c of drawn) {
        const series = [{ name: "", x: c.x, y: c.y, colour: "fused" }];
        chart(html("div", "chart", file.querySelector(name)), { title: c.title + (c.unit ? `, ${c.unit}` : ""), x: data.axis, series, shade: data.absorption, zero: c.zero, height: 230 });
      }
    }
    file.querySelectorAll(".histogram").forEach((host) => {
      const h = data.histograms[+host.dataset.index], total = h.counts.reduce((a, b) => a + b, 0) || 1;
      const x = h.edges.flatMap((e) => [e, e]), y = [0, ...h.counts.flatMap((n) => [(100 * n) / total, (100 * n) / total]), 0];
      let sum = 0;
      const end = h.counts.findIndex((n) => (sum += n) >= 0.998 * total) + 1;
      chart(host, { x: h.unit, y: "%", series: [{ name: "", x, y, colour: "fused" }], xrange: [0, h.edges[end]], zero: true, height: 290 });
    });
    const response = file.querySelector(".response");
    if (response) chart(response, { x: data.axis, y: "relative weight", series: data.response.map((r, i) => ({ ...r, colour: SPARE[i % SPARE.length], dash: ["none", "6 3", "2 3"][Math.floor(i / SPARE.length) % 3] })), shade: data.absorption, zero: true, height: 260 });
    const training = file.querySelector(".training");
    if (training) {
      const t = data.training, series = t.curves.map((c, i) => ({ ...c, colour: ["LRHSI", "fused"][i] }));
      if (t.base !== null) series.push({ name: "training-free base on the same blocks", x: [Math.min(...t.curves[0].x), Math.max(...t.curves[0].x)], y: [t.base, t.base], flat: t.base, colour: "reference", dash: "7 4" });
      chart(training, { x: "step", y: "loss, relative error", series, zero: true, height: 280, at: t.kept });
    }
  }
})();
