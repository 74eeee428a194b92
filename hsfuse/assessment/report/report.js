(() => {
  const { html, chart, csvButton, short } = hsfuseChart;
  const LOOK = { fused: {}, LRHSI: { dash: "7 4" }, MSI: { marks: true }, reference: { dash: "2 3" } };
  const SPARE = ["fused", "LRHSI", "MSI", "4", "5", "6", "reference"];

  // Where a pixel lies, whole numbers being corners: lines of text for its map coordinates, longitude and latitude.
  function whereabouts(place, row, col) {
    if (!place) return [];
    const [a, b, c, d, e, f] = place.transform, x = a * col + b * row + c, y = d * col + e * row + f;
    const digits = place.geographic ? 6 : Math.max(0, 1 - Math.floor(Math.log10(Math.hypot(a, d))));
    const lines = place.geographic ? [] : [`x ${x.toFixed(digits)}, y ${y.toFixed(digits)}${place.unit ? " " + place.unit : ""}${place.crs ? `, ${place.crs}` : ""}`];
    const at = place.lonlat && between(place.lonlat, row, col);
    if (at) lines.push(`${Math.abs(at.lat).toFixed(6)}° ${at.lat < 0 ? "S" : "N"}, ${Math.abs(at.lon).toFixed(6)}° ${at.lon < 0 ? "W" : "E"}`);
    return lines;
  }

  // Bilinear between the nodes around a pixel.
  function between({ rows, cols, lon, lat }, row, col) {
    const cell = (nodes, v) => { const n = nodes.length - 1, k = Math.min(n - 1, Math.max(0, Math.floor((v * n) / nodes[n]))); return [k, (v - nodes[k]) / (nodes[k + 1] - nodes[k])]; };
    const [i, u] = cell(rows, row), [j, v] = cell(cols, col), n = cols.length;
    const mix = (w) => (1 - u) * ((1 - v) * w[i * n + j] + v * w[i * n + j + 1]) + u * ((1 - v) * w[(i + 1) * n + j] + v * w[(i + 1) * n + j + 1]);
    return { lon: ((mix(lon) + 540) % 360) - 180, lat: mix(lat) };
  }

  // What stands in a picture at a share of its height and width: its bytes there.
  const bytes = new WeakMap();
  function pixel(image, down, right) {
    if (!image.naturalWidth) return null;
    const known = bytes.get(image);
    let seen = known && known.src === image.src ? known : null;
    if (!seen) {
      const canvas = html("canvas", ""), w = (canvas.width = image.naturalWidth), h = (canvas.height = image.naturalHeight);
      const pen = canvas.getContext("2d", { willReadFrequently: true });
      pen.drawImage(image, 0, 0);
      seen = { src: image.src, w, h, data: pen.getImageData(0, 0, w, h).data };
      bytes.set(image, seen);
    }
    const at = (share, n) => Math.min(n - 1, Math.max(0, Math.floor(share * n)));
    const k = 4 * (at(down, seen.h) * seen.w + at(right, seen.w));
    return seen.data.slice(k, k + 4);
  }

  // The value of a map: the place of its colour on the bar.
  function valueOf(map, palettes, rgba) {
    if (!rgba || !rgba[3]) return "no data";
    const hex = palettes[map.palette], [low, high] = map.ends, last = hex.length / 6 - 1;
    let best = 0, least = Infinity;
    for (let k = 0; k <= last; k++) {
      const c = parseInt(hex.slice(6 * k, 6 * k + 6), 16), far = Math.abs((c >> 16) - rgba[0]) + Math.abs(((c >> 8) & 255) - rgba[1]) + Math.abs((c & 255) - rgba[2]);
      if (far < least) { least = far; best = k; }
    }
    const sign = best === last ? "≥ " : best === 0 && low ? "≤ " : "";
    return `${sign}${+(low + ((high - low) * best) / last).toPrecision(3)}${map.unit ? " " + map.unit : ""}`;
  }

  // The values of three bands, from the stretch of the picture.
  const valuesOf = (picture, rgba) => (rgba[0] === 128 && rgba[1] === 128 && rgba[2] === 128 ? "no data" : picture.labels.map((label, i) => {
    const sign = rgba[i] === 255 ? "≥ " : rgba[i] === 0 ? "≤ " : "";
    return `${label} ${sign}${+(picture.low[i] + ((picture.high[i] - picture.low[i]) * (rgba[i] / 255) ** (1 / picture.power))).toPrecision(2)}`;
  }).join(", "));

  // A note beside the cursor over an image, as long as it is there.
  const tip = html("div", "tip", document.body);
  tip.hidden = true;
  function hover(node, told) {
    const share = (event) => { const b = node.getBoundingClientRect(); return [(event.clientY - b.top) / b.height, (event.clientX - b.left) / b.width]; };
    node.addEventListener("pointermove", (event) => {
      const [down, right] = share(event);
      if (down < 0 || right < 0 || down >= 1 || right >= 1) return;
      tip.textContent = told(down, right).join("\n");
      tip.hidden = false;
      const { width, height } = tip.getBoundingClientRect(), room = document.documentElement.clientWidth;
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, room - width - 4))}px`;
      tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
    });
    node.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
  const at = (data, down, right) => {
    const row = down * data.shape[1], col = right * data.shape[2];
    return [`row ${Math.floor(row)}, column ${Math.floor(col)}`, ...whereabouts(data.place, row, col)];
  };

  function slider(file, data) {
    const pictures = data.pictures, box = file.querySelector(".compare");
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
      box.querySelector(".caption .colours").textContent = main.caption;
      const picked = file.querySelector(".picker img");
      if (picked) { picked.src = images.fused.src; picked.alt = `Fused cube, ${kind}`; }
    };
    picks.forEach((p) => p.addEventListener("change", show));
    const move = () => stage.style.setProperty("--cut", `${wipe.value}%`);
    wipe.addEventListener("input", move);
    move();
    flicker(file.querySelector(".flicker"), stage, move);
    hover(stage, (down, right) => {
      const side = 100 * right < parseFloat(stage.style.getPropertyValue("--cut")) ? 0 : 1;
      const name = picks[side].value, picture = pictures[picks[2].value][name], image = stage.querySelector(side ? ".right" : ".left");
      return [...at(data, down, right), ...(picture ? [`${name}: ${valuesOf(picture, pixel(image, down, right))}`] : [])];
    });
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
    // A mark at a pixel, in what is seen of the scene.
    const place = (node, row, col) => {
      const v = pick.view, [x, y] = [(col + 0.5 - v.col) / v.cols, (row + 0.5 - v.row) / v.rows];
      node.style.left = `${100 * x}%`;
      node.style.top = `${100 * y}%`;
      return x >= 0 && x <= 1 && y >= 0 && y <= 1;
    };
    const letters = s.chosen.map((k, i) => {
      const letter = String.fromCharCode(65 + i);
      const mark = html("span", "mark", picker, letter), button = html("button", "", box.querySelector(".points"), letter);
      button.type = "button";
      button.addEventListener("click", () => select(k));
      return { button, mark };
    });
    const here = html("span", "mark here", picker);
    let current = s.chosen.length ? s.chosen[0] : 0;
    const figures = [...file.querySelectorAll("figure.map[data-map]")].map((figure) => ({ map: data.maps[+figure.dataset.map], image: figure.querySelector("img") }));
    const stem = data.name.replace(/\.\w+$/, "");
    function select(k) {
      current = k;
      marks(s.rows[k], s.cols[k]);
      pick.selected(s.rows[k], s.cols[k]);
      show(of(k), s.rows[k], s.cols[k], s.chosen.includes(k) ? `Point ${String.fromCharCode(65 + s.chosen.indexOf(k))}, ` : "Point ");
    }
    const of = (k) => ["reference", "LRHSI", "fused", "MSI"].filter((n) => read[n]).map((name) => ({ name, x: s.images[name].x, y: read[name](k), colour: name, ...LOOK[name] }));
    function marks(row, col) {
      const lettered = s.chosen.findIndex((k) => s.rows[k] === row && s.cols[k] === col);
      here.hidden = !place(here, row, col) || lettered >= 0;
      letters.forEach(({ button, mark }, i) => {
        button.setAttribute("aria-pressed", String(i === lettered));
        mark.classList.toggle("chosen", i === lettered);
        mark.hidden = !place(mark, s.rows[s.chosen[i]], s.cols[s.chosen[i]]);
      });
    }
    function show(series, row, col, point) {
      const known = series.filter((t) => t.y.some((v) => v !== null)), file = `${stem}-spectrum-row${row}-column${col}`;
      chart(plot, { x: data.axis, y: data.unit, series: known, shade: data.absorption, zero: true, height: 360, file });
      const [down, right] = [(row + 0.5) / s.height, (col + 0.5) / s.width];
      const values = figures.map(({ map, image }) => `${map.title.replace(/ \(.*/, "")} ${valueOf(map, data.palettes, pixel(image, down, right))}`);
      where.textContent = `${point}row ${row}, column ${col}. ${[...whereabouts(data.place, row + 0.5, col + 0.5), ...values].map((t) => `${t}.`).join(" ")}`;
    }
    // All points in one table: the columns are all wavelengths of all images.
    const everything = () => {
      const names = Object.keys(read), nm = [...new Set(names.flatMap((n) => s.images[n].x))].sort((a, b) => a - b);
      const rows = s.rows.flatMap((row, k) => names.map((n) => { const y = new Map(read[n](k).map((v, i) => [s.images[n].x[i], v])); return [row, s.cols[k], n, ...nm.map((x) => y.get(x))]; }));
      return [["row", "column", "image", ...nm.map((x) => `${x}${data.axis.includes("nm") ? " nm" : ""}`)], ...rows];
    };
    if (s.rows.length > 1) csvButton(box.querySelector(".points"), `All ${s.rows.length} points as CSV`, `Spectra of all ${s.rows.length} points, as CSV`, () => `${stem}-spectra`, everything);
    hover(picker, (down, right) => {
      const image = picker.querySelector("img"), kind = file.querySelector(".pick-kind")?.value || Object.keys(data.pictures)[0];
      const v = pick.view, picture = pick.picture || data.pictures[kind]?.fused;
      return [...at(data, (v.row + down * v.rows) / s.height, (v.col + right * v.cols) / s.width), ...(image && picture ? [`fused: ${valuesOf(picture, pixel(image, down, right))}`] : [])];
    });
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
      pick.at((event.clientY - b.top) / b.height, (event.clientX - b.left) / b.width);
    });
    const moves = { ArrowUp: (k) => s.rows[k] < s.rows[current], ArrowDown: (k) => s.rows[k] > s.rows[current], ArrowLeft: (k) => s.cols[k] < s.cols[current], ArrowRight: (k) => s.cols[k] > s.cols[current] };
    picker.addEventListener("keydown", (event) => {
      if (!moves[event.key]) return;
      event.preventDefault();
      pick.move(event.key);
    });
    // What is done with a place that was picked; `hsfuse view`, which has all spectra, does it its own way.
    const pick = {
      at: (down, right) => select(nearest(down * s.height - 0.5, right * s.width - 0.5)),
      move: (key) => select(nearest(s.rows[current], s.cols[current], moves[key])),
      sampled: (row, col) => { const k = s.rows.findIndex((r, i) => r === row && s.cols[i] === col); return k < 0 ? [] : of(k); },
      selected: () => {},
      show, mark: marks, picture: null, view: { row: 0, col: 0, rows: s.height, cols: s.width },
    };
    if (s.rows.length) select(current);
    return pick;
  }

  // A link into a folded part unfolds it; all parts are printed, each as it was afterwards.
  const unfold = () => { const part = document.getElementById(location.hash.slice(1))?.closest("details"); if (part) part.open = true; };
  addEventListener("hashchange", unfold);
  document.querySelectorAll(".contents a").forEach((link) => link.addEventListener("click", () => setTimeout(unfold)));
  unfold();
  let folded = [];
  addEventListener("beforeprint", () => { folded = [...document.querySelectorAll("details:not([open])")]; folded.forEach((d) => { d.open = true; }); });
  addEventListener("afterprint", () => folded.forEach((d) => { d.open = false; }));

  for (const box of document.querySelectorAll(".methods")) {
    const button = html("button", "copy", box.parentNode, "Copy");
    button.type = "button";
    button.addEventListener("click", () => {
      getSelection().selectAllChildren(box);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    });
  }

  window.hsfuseReport = [];
  for (const file of document.querySelectorAll("article.file")) {
    const data = JSON.parse(file.querySelector(".data").textContent), stem = data.name.replace(/\.\w+$/, "");
    slider(file, data);
    for (const figure of file.querySelectorAll("figure.map[data-map]")) {
      const map = data.maps[+figure.dataset.map], image = figure.querySelector("img");
      hover(image, (down, right) => [...at(data, down, right), `${map.title}: ${valueOf(map, data.palettes, pixel(image, down, right))}`]);
    }
    window.hsfuseReport.push({ file, data, pick: spectra(file, data) });
    for (const [name, drawn] of [[".curves", data.curves], [".reduced-curves", data.reduced]]) {
      for (const c of drawn) {
        const series = [{ name: "", x: c.x, y: c.y, colour: "fused" }];
        chart(html("div", "chart", file.querySelector(name)), { title: c.title + (c.unit ? `, ${c.unit}` : ""), x: data.axis, series, shade: data.absorption, zero: c.zero, height: 230, file: `${stem}${name === ".curves" ? "" : "-reduced"}-${c.title}` });
      }
    }
    const histogram = file.querySelector(".histogram");
    if (histogram) {
      const [edges, counts] = data.angles, total = counts.reduce((a, b) => a + b, 0) || 1;
      const x = edges.flatMap((e) => [e, e]), y = [0, ...counts.flatMap((n) => [(100 * n) / total, (100 * n) / total]), 0];
      let sum = 0;
      const end = counts.findIndex((n) => (sum += n) >= 0.998 * total) + 1;
      chart(histogram, { x: "degrees", y: "%", series: [{ name: "", x, y, colour: "fused" }], xrange: [0, edges[end]], zero: true, whole: true, height: 240, file: `${stem}-angles`, table: [["from", "to", "pixels"], ...counts.map((n, i) => [edges[i], edges[i + 1], n])] });
    }
    const response = file.querySelector(".response");
    if (response) chart(response, { x: data.axis, y: "relative weight", series: data.response.map((r, i) => ({ ...r, colour: SPARE[i % SPARE.length], dash: ["none", "6 3", "2 3"][Math.floor(i / SPARE.length) % 3] })), shade: data.absorption, zero: true, whole: true, height: 260, file: `${stem}-response` });
    const mtf = file.querySelector(".mtf");
    if (mtf) chart(mtf, { x: "cycles per LRHSI pixel", y: "MTF", series: data.mtf.map((m, i) => ({ ...m, colour: ["fused", "LRHSI", "reference", "reference"][m.dash === "2 3" ? 2 : i] })), xrange: [0, 1], zero: true, whole: true, height: 260, at: 0.5, mark: "Nyquist", file: `${stem}-MTF` });
    const training = file.querySelector(".training");
    if (training) {
      const t = data.training, series = t.curves.map((c, i) => ({ ...c, colour: ["LRHSI", "fused"][i] }));
      if (t.base !== null) series.push({ name: "training-free base on the same blocks", x: [Math.min(...t.curves[0].x), Math.max(...t.curves[0].x)], y: [t.base, t.base], flat: t.base, colour: "reference", dash: "7 4" });
      chart(training, { x: "step", y: "loss, relative error", series, zero: true, whole: true, height: 280, at: t.kept, file: `${stem}-fitting` });
    }
  }
})();
