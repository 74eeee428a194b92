// What `hsfuse view` adds to a report: any pixel's spectrum, any three bands, near or far; all asked of its server.
(() => {
  const live = JSON.parse(document.getElementById("live").textContent), { html } = hsfuseChart;
  const found = hsfuseReport.find(({ data, pick }) => pick && data.name === live.name);
  if (!found) return;
  const { file, data, pick } = found, box = file.querySelector(".spectra"), picker = box.querySelector(".picker");
  const where = box.querySelector(".where"), image = picker.querySelector("img"), [, rows, cols] = live.shape;
  const whole = { row: 0, col: 0, rows, cols }, pixel = { row: rows >> 1, col: cols >> 1 };
  const within = (v, low, high) => Math.min(high, Math.max(low, v));

  async function ask(what, values) {
    try {
      const answer = await fetch(`/${what}?${new URLSearchParams(values)}`);
      if (answer.ok) return await answer.json();
      where.textContent = `${await answer.text()}.`;
    } catch {
      where.textContent = "hsfuse view has ended: start it again to see more.";
    }
    return null;
  }

  // The spectrum of a pixel, and of the other images where it is among the sampled ones.
  async function go(row, col) {
    Object.assign(pixel, { row: within(row, 0, rows - 1), col: within(col, 0, cols - 1) });
    const { row: r, col: c } = pixel;
    pick.mark(r, c);
    [numbers.row.value, numbers.col.value] = [r, c];
    const answer = await ask("spectrum", { row: r, col: c });
    if (!answer || pixel.row !== r || pixel.col !== c) return;
    const others = data.unit === live.unit ? pick.sampled(r, c).filter((s) => s.name !== "fused") : [];
    pick.show([...others, { name: "fused", x: live.x, y: answer.values, colour: "fused" }], r, c, "Pixel ");
    if (answer.values.every((v) => v === null)) where.textContent += " It is masked.";
  }

  let turns = 0;
  async function draw() {
    const [red, green, blue] = choices.map((c) => c.value), view = { ...pick.view };
    const turn = ++turns, picture = await ask("picture", { red, green, blue, ...view });
    if (!picture || turn !== turns) return;  // or asked for another one since
    Object.assign(image, { src: picture.src, alt: `Fused cube, ${picture.caption}` });
    pick.picture = picture;
    pick.mark(pixel.row, pixel.col);
  }
  function zoom(times) {
    const [h, w] = [rows, cols].map((n, i) => within(Math.round((i ? pick.view.cols : pick.view.rows) / times), Math.min(n, 8), n));
    pick.view = { row: within(pixel.row - (h >> 1), 0, rows - h), col: within(pixel.col - (w >> 1), 0, cols - w), rows: h, cols: w };
    draw();
  }

  const button = (parent, text, act) => { const b = html("button", "", parent, text); b.type = "button"; b.addEventListener("click", act); };
  const controls = html("div", "controls live", box.querySelector(".points").parentNode);
  const numbers = Object.fromEntries([["row", rows], ["col", cols]].map(([name, count]) => {
    const label = html("label", "", controls, `${name === "row" ? "Row" : "Column"} `), input = html("input", "", label);
    Object.assign(input, { type: "number", min: 0, max: count - 1 });
    input.addEventListener("change", () => go(+numbers.row.value || 0, +numbers.col.value || 0));
    return [name, input];
  }));
  const shown = Object.values(data.pictures)[0]?.fused.labels || [];
  const choices = ["Red", "Green", "Blue"].map((name, i) => {
    const select = html("select", "", html("label", "", controls, `${name} `));
    live.labels.forEach((label, band) => { html("option", "", select, label).value = band; });
    select.selectedIndex = Math.max(0, live.labels.indexOf(shown[i]));
    select.addEventListener("change", draw);
    return select;
  });
  button(controls, "Nearer", () => zoom(2));
  button(controls, "Farther", () => zoom(0.5));
  button(controls, "Whole", () => { pick.view = whole; draw(); });

  box.querySelector(".lead").textContent = "Click on the picture for the spectrum of that pixel; arrow keys move by one pixel, + and - change the distance. The cube is read where you look." + (Object.keys(data.spectra.images).length > 1 ? " Other images are known at the sampled points alone." : "");
  pick.at = (down, right) => {
    const { row, col, rows: h, cols: w } = pick.view;
    return go(row + within(Math.floor(down * h), 0, h - 1), col + within(Math.floor(right * w), 0, w - 1));
  };
  pick.move = (key) => go(pixel.row + (key === "ArrowDown") - (key === "ArrowUp"), pixel.col + (key === "ArrowRight") - (key === "ArrowLeft"));
  pick.selected = (row, col) => { Object.assign(pixel, { row, col }); [numbers.row.value, numbers.col.value] = [row, col]; };
  picker.addEventListener("keydown", (event) => { if (event.key === "+") zoom(2); else if (event.key === "-") zoom(0.5); });
  file.querySelector(".pick-kind")?.addEventListener("change", () => { turns++; pick.view = whole; pick.picture = null; pick.mark(pixel.row, pixel.col); });
  go(pixel.row, pixel.col);
})();
