(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const KINDS = [["bbox", "Box"], ["segm", "Mask"]];

  // --- Charts: both axes from 0 to 1.
  const WIDTH = 360, HEIGHT = 270, LEFT = 44, RIGHT = 12, TOP = 10, BOTTOM = 42;
  const px = (x) => LEFT + x * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM);

  function node(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // lines: {name, points, style, dots}; marks: {x, y, style}.
  function drawChart(id, xLabel, yLabel, lines, marks, summary) {
    const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": summary });
    for (const tick of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
      svg.append(
        node("line", { class: "grid", x1: px(tick), x2: px(tick), y1: py(0), y2: py(1) }),
        node("line", { class: "grid", x1: px(0), x2: px(1), y1: py(tick), y2: py(tick) }),
        node("text", { x: px(tick), y: py(0) + 15, "text-anchor": "middle" }, String(tick)),
        node("text", { x: px(0) - 7, y: py(tick) + 4, "text-anchor": "end" }, String(tick)),
      );
    }
    svg.append(
      node("text", { x: px(0.5), y: HEIGHT - 6, "text-anchor": "middle" }, xLabel),
      node("text", { transform: `translate(12 ${py(0.5)}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
    );
    for (const line of lines) {
      const points = line.points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`);
      svg.append(node("polyline", { class: `line ${line.style}`, points: points.join(" ") }));
      if (line.dots) for (const [x, y] of line.points) marks = [...marks, { x, y, style: line.style, size: 3 }];
    }
    for (const { x, y, style, size } of marks) {
      svg.append(node("circle", { class: `dot ${style}`, cx: px(x), cy: py(y), r: size || 5 }));
    }
    const keys = document.createElement("p");
    keys.className = "keys";
    for (const line of lines) {
      const key = document.createElement("span");
      key.className = `key ${line.style}`;
      key.textContent = line.name;
      keys.append(key);
    }
    byId(id).replaceChildren(svg, keys);
  }

  const mean = (rows) => rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
  const spread = (values) => values.map((value, i) => [i / (values.length - 1), value / 1000]);

  function curveOf(own, id) {
    if (id !== "") return own[id];
    const all = Object.values(own);
    if (!all.length) return undefined;
    const f1 = mean(all.map((curve) => curve.f1));
    const best = f1.indexOf(Math.max(...f1));
    return { precision: mean(all.map((curve) => curve.precision)), f1, best: [f1[best] / 1000, best / (f1.length - 1)] };
  }

  function drawCurves() {
    const select = byId("curve-class");
    const found = KINDS.filter(([kind]) => data.curves[kind]).map(([kind, name], i) => (
      { name, style: `s${i}`, curve: curveOf(data.curves[kind], select.value) }
    )).filter(({ curve }) => curve);
    const said = found.map(({ name, curve }) => {
      const ap = curve.precision.reduce((a, b) => a + b, 0) / curve.precision.length / 10;
      const best = curve.best[1] === null ? "nothing found" : `best F1 ${curve.best[0].toFixed(2)} at score ≥ ${curve.best[1].toFixed(2)}`;
      return `${name}: AP50 ${ap.toFixed(1)}, ${best}`;
    });
    const who = select.selectedOptions[0].textContent;
    const text = found.length ? `${who}. ${said.join("; ")}.` : `${who}: no object of this class, so there is no curve.`;
    byId("curve-text").textContent = text;
    const lines = (key) => found.map(({ name, style, curve }) => ({ name, style, points: spread(curve[key]) }));
    const marks = found.filter(({ curve }) => curve.best[1] !== null)
      .map(({ style, curve }) => ({ x: Math.min(Math.max(curve.best[1], 0), 1), y: curve.best[0], style }));
    drawChart("chart-pr", "recall", "precision", lines("precision"), [], `Precision over recall. ${text}`);
    drawChart("chart-f1", "score threshold", "F1", lines("f1"), marks, `F1 over the score threshold. ${text}`);
  }

  function drawCalibration() {
    const lines = KINDS.filter(([kind]) => data.calibration[kind]).map(([kind, name], i) => (
      { name, style: `s${i}`, points: data.calibration[kind], dots: true }
    ));
    const said = "Precision over the mean score of ten ranges of scores; the table below has the figures.";
    drawChart("chart-calibration", "mean score", "precision", [...lines, { name: "ideal", style: "ideal", points: [[0, 0], [1, 1]] }], [], said);
  }

  if (byId("curve-class")) {
    byId("curve-class").addEventListener("change", drawCurves);
    drawCurves();
    drawCalibration();
  }

  // --- The gallery's filter.
  function applyFilter(form) {
    const label = form.elements.label.value, error = form.elements.error.value;
    const pairs = [...document.querySelectorAll(".pair")];
    let shown = 0, marks = 0;
    for (const pair of pairs) {
      const items = [...pair.querySelectorAll("li")];
      const fits = (item) => (label === "" || item.dataset.label === label)
        && (error === "" || error === "any" || item.dataset.error === error);
      const active = label !== "" || error !== "";
      const hits = active ? items.filter(fits) : [];
      pair.hidden = active && !hits.length;
      shown += !pair.hidden;
      marks += hits.length;
      for (const item of items) item.classList.toggle("hit", hits.includes(item));
      for (const shot of pair.querySelectorAll(".shot")) {
        shot.querySelector("svg")?.remove();
        const side = shot.dataset.side;
        const own = hits.filter((item) => (item.dataset.error === "missed") === (side === "truth"));
        if (own.length) shot.append(overlay(own));
      }
    }
    const what = marks ? `, ${marks} errors marked` : "";
    byId("filter-count").textContent = `${shown} of ${pairs.length} images${what}`;
  }

  function overlay(items) {
    const svg = node("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const item of items) {
      const [x, y, width, height] = item.dataset.box.split(" ");
      svg.append(node("rect", { x, y, width, height }));
    }
    return svg;
  }

  const form = byId("filter");
  if (form) {
    form.hidden = false;
    form.addEventListener("change", () => applyFilter(form));
    form.addEventListener("submit", (event) => event.preventDefault());
    // Its fields are reset only after this event.
    form.addEventListener("reset", () => setTimeout(() => applyFilter(form)));
    applyFilter(form);
  }

  // --- Tables that sort by a click on a column's head.
  const valueOf = (row, column) => {
    const text = row.cells[column].textContent, number = Number(text.replace(/[,%+ ()]/g, "").replace("−", "-"));
    return Number.isNaN(number) ? text : number;
  };

  function sortBy(table, column, falling) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    // What has no figure comes last either way.
    rows.sort(([a], [b]) => (a === "–") - (b === "–") || (falling ? -1 : 1) * (a < b ? -1 : a > b ? 1 : 0));
    body.append(...rows.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column, heads) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => {
        // Figures from the greatest on, names from the first.
        const first = head.classList.contains("n") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        sortBy(table, column, order === "descending");
      });
      head.replaceChildren(button);
    });
  }

  // A printed page has no folds to open.
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details:not([open])")) {
      fold.open = true;
      opened.push(fold);
    }
  });
  addEventListener("afterprint", () => {
    for (const fold of opened.splice(0)) fold.open = false;
  });
})();
