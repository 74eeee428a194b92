(() => {
  const { html, chart } = hsfuseChart;
  const LOOK = { fused: {}, LRHSI: { dash: "7 4" }, MSI: { marks: true }, reference: { dash: "2 3" } };
  const SPARE = ["fused", "LRHSI", "MSI", "4", "5", "6", "reference"];


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
      box.querySelector(".caption .colours").textContent = main.caption;
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
    const letters = s.chosen.map((k, i) => {
      const letter = String.fromCharCode(65 + i);
      const mark = html("span", "mark", picker, letter), button = html("button", "", box.querySelector(".points"), letter);
      button.type = "button";
      button.addEventListener("click", () => select(k));
      place(mark, k);
      return { button, mark };
    });
    const here = html("span", "mark here", picker);
    let current = s.chosen.length ? s.chosen[0] : 0;
    function select(k) {
      current = k;
      place(here, k);
      here.hidden = s.chosen.includes(k);
      letters.forEach(({ button, mark }, i) => {
        button.setAttribute("aria-pressed", String(s.chosen[i] === k));
        mark.classList.toggle("chosen", s.chosen[i] === k);
      });
      const series = ["reference", "LRHSI", "fused", "MSI"].filter((n) => read[n]).map((name) => ({ name, x: s.images[name].x, y: read[name](k), colour: name, ...LOOK[name] }));
      chart(plot, { x: data.axis, y: data.unit, series: series.filter((t) => t.y.some((v) => v !== null)), shade: data.absorption, zero: true, height: 360 });
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
      chart(host, { x: h.unit, y: "%", series: [{ name: "", x, y, colour: "fused" }], xrange: [0, h.edges[end]], zero: true, whole: true, height: 240 });
    });
    const response = file.querySelector(".response");
    if (response) chart(response, { x: data.axis, y: "relative weight", series: data.response.map((r, i) => ({ ...r, colour: SPARE[i % SPARE.length], dash: ["none", "6 3", "2 3"][Math.floor(i / SPARE.length) % 3] })), shade: data.absorption, zero: true, whole: true, height: 260 });
    const mtf = file.querySelector(".mtf");
    if (mtf) chart(mtf, { x: "cycles per LRHSI pixel", y: "MTF", series: data.mtf.map((m, i) => ({ ...m, colour: ["fused", "LRHSI", "reference", "reference"][m.dash === "2 3" ? 2 : i] })), xrange: [0, 1], zero: true, whole: true, height: 260, at: 0.5, mark: "Nyquist" });
    const training = file.querySelector(".training");
    if (training) {
      const t = data.training, series = t.curves.map((c, i) => ({ ...c, colour: ["LRHSI", "fused"][i] }));
      if (t.base !== null) series.push({ name: "training-free base on the same blocks", x: [Math.min(...t.curves[0].x), Math.max(...t.curves[0].x)], y: [t.base, t.base], flat: t.base, colour: "reference", dash: "7 4" });
      chart(training, { x: "step", y: "loss, relative error", series, zero: true, whole: true, height: 280, at: t.kept });
    }
  }
})();
