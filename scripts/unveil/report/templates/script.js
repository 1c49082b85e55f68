"use strict";
// Pickers redraw from the JSON in the page, tables sort, the slider compares; charts by uPlot.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = (id) => JSON.parse($(id).textContent);
  const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
  document.documentElement.classList.add("scripted");

  // --- sorting -------------------------------------------------------------------------
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return "v" in cell.dataset ? (cell.dataset.v === "" ? NaN : +cell.dataset.v)
      : cell.textContent.trim().toLowerCase();
  };
  const compare = (a, b) => {
    const [noA, noB] = [Number.isNaN(a), Number.isNaN(b)];
    if (noA || noB) return null;
    return typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
  };
  const sortRows = (table, column, sign) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    const missing = rows.filter(([value]) => Number.isNaN(value));
    const known = rows.filter(([value]) => !Number.isNaN(value));
    known.sort(([a], [b]) => sign * (compare(a, b) ?? 0));
    body.append(...[...known, ...missing].map(([, row]) => row));
  };
  const resort = (table) => {
    const head = $("th[aria-sort]", table);
    if (head) sortRows(table, head.cellIndex, head.getAttribute("aria-sort") === "ascending" ? 1 : -1);
  };
  const makeSortable = (table, head) => {
    const button = make("button", { type: "button", title: "Sort by this column" });
    const small = $("small", head);
    button.append(...[...head.childNodes].filter((node) => node !== small));
    head.prepend(button);
    button.addEventListener("click", () => {
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const next = head.getAttribute("aria-sort") === first ? other : first;
      for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", next);
      resort(table);
    });
  };

  // --- score tables --------------------------------------------------------------------
  const tables = data("#table-data");
  const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
  const fillCell = (cell, score, total) => {
    cell.className = score.r === 1 ? "first" : score.r === 2 ? "second" : score.n && !score.c ? "apart" : "";
    cell.dataset.v = score.v ?? "";
    cell.textContent = score.t;
    if (score.r) cell.append(make("span", { className: "hidden-text", textContent: score.r === 1 ? " best" : " second" }));
    if (!score.c && score.n) cell.append(make("small", { textContent: ` (${score.n} of ${total})` }));
  };
  const fillHead = (head, text, note, direction) => {
    ($("button", head) || head).textContent = text;
    const small = $("small", head);
    if (small) small.textContent = note;
    head.dataset.first = direction === "high" ? "descending" : "ascending";
  };
  const noteOf = (stand) => `${plural(stand.scenes, "scene")}, ${plural(stand.places, "place")}`;
  const setHeads = (table, columns) => {
    const heads = table.tHead.rows[0];
    while (heads.cells.length > columns.length + 1) heads.lastElementChild.remove();
    while (heads.cells.length < columns.length + 1) {
      const head = make("th", { scope: "col" });
      head.append(make("small"));
      heads.append(head);
      makeSortable(table, head);
    }
    columns.forEach((column, j) =>
      fillHead(heads.cells[j + 1], column.text, column.note, tables.directions[column.metric]));
  };
  const columnsOf = (table, block, metric, level) => table.dataset.kind === "levels"
    ? block.stands[metric].map((stand, i) => ({ metric, i, text: stand.label, note: noteOf(stand) }))
    : tables.metrics.filter((name) => block.cells[name]).map((name) => ({
        metric: name, i: level, text: tables.heads[name],
        note: tables.notes[name] }));
  const redraw = () => {
    const region = $("#pick-region").value, metric = $("#pick-metric").value;
    const level = +$("#pick-level").value;
    for (const table of $$("table.score[data-protocol]")) {
      const block = tables.blocks[`${table.dataset.protocol}|${region}`];
      const shown = block && (table.dataset.kind !== "levels" || block.cells[metric]);
      table.closest(".block").querySelector(".nothing").hidden = Boolean(shown);
      table.hidden = !shown;
      if (!shown) continue;
      const columns = columnsOf(table, block, metric, level);
      setHeads(table, columns);
      table.tBodies[0].replaceChildren(...block.models.map((model, k) => {
        const row = make("tr");
        row.append(make("th", { scope: "row", textContent: tables.titles[model] }));
        for (const column of columns) {
          const cell = row.insertCell();
          fillCell(cell, block.cells[column.metric][k][column.i], block.stands[column.metric][column.i].of);
        }
        return row;
      }));
      const what = table.dataset.kind === "levels" ? tables.heads[metric] : tables.levels[level];
      $(".what", table.caption).textContent = what;
      $(".region", table.caption).textContent = tables.region_names[region];
      resort(table);
    }
  };
  const cellText = (cell) => [...cell.childNodes].filter((node) =>
    !(node.classList && (node.classList.contains("hidden-text") || node.tagName === "SMALL")))
    .map((node) => node.textContent).join("").trim();
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  // A spreadsheet would run what begins like this as a formula, unless it is a number.
  const harmless = (text) => (/^[=+@\-\t\r]/.test(text) && isNaN(text) ? `'${text}` : text);
  const rowsOf = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => harmless(cellText(cell))));
  const download = (name, text) => {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const toCsv = (rows) => rows.map((row) => row.map(quote).join(",")).join("\n") + "\n";
  const allScores = () => {
    const rows = [["protocol", "region", "cloud_level", "metric", "unit", "model", "value", "n_scenes", "n_places", "compared_on_common_scenes"]];
    for (const [key, block] of Object.entries(tables.blocks))
      for (const [metric, models] of Object.entries(block.cells))
        models.forEach((cells, k) => cells.forEach((score, i) => rows.push([
          ...key.split("|"), block.stands[metric][i].label, metric, tables.units[metric], block.models[k],
          score.v ?? "", score.n, score.p, Boolean(score.c)].map(String))));
    return rows;
  };
  for (const table of $$("table.sortable"))
    for (const head of [...table.tHead.rows[0].cells]) makeSortable(table, head);
  if ($("#pick-region")) {
    for (const id of ["#pick-region", "#pick-metric", "#pick-level"]) $(id).addEventListener("change", redraw);
    $("#all-csv").addEventListener("click", () => download("pooled_scores.csv", toCsv(allScores())));
  }
  for (const button of $$("[data-csv]"))
    button.addEventListener("click", () => download(`${button.dataset.csv}.csv`, toCsv(rowsOf($(`#${button.dataset.csv}`)))));
  for (const button of $$("[data-copy]"))
    button.addEventListener("click", async () => {
      const source = $(`#${button.dataset.copy}`);
      const text = source.rows ? rowsOf(source).map((row) => row.join("\t")).join("\n") : source.textContent;
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
      catch { button.textContent = "Not allowed by the browser"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });

  // --- the picture ---------------------------------------------------------------------
  const picture = $("#picture-table");
  if (picture) {
    const more = data("#image-data"), stretches = data("#stretch-data");
    const firstView = picture.dataset.view;
    const chips = $$(".chip", picture);
    const first = {};
    for (const chip of chips) (first[chip.dataset.scene] ??= {})[chip.dataset.column] = $("img", chip).src;
    const source = (view, scene, column) => (view === firstView ? undefined : more[view]?.[scene]?.[column]) ?? first[scene]?.[column];
    let view = firstView;
    $("#pick-view")?.addEventListener("change", (event) => {
      view = event.target.value;
      const name = event.target.selectedOptions[0].textContent;
      for (const chip of chips) {
        const image = $("img", chip);
        image.src = source(view, chip.dataset.scene, chip.dataset.column);
        image.alt = `${chip.dataset.label}, ${name}`;
      }
      for (const note of $$("[data-stretch]")) {
        const text = stretches[note.dataset.stretch][view];
        if (text) note.textContent = text;
      }
      $("#error-scale").hidden = view !== "error" && view !== "std";
    });
    $("#pick-outline")?.addEventListener("change", (event) => picture.classList.toggle("outlined", event.target.checked));
    const boxes = $$("[data-toggle]"), body = picture.tBodies[0];
    const showColumns = () => {
      const protocol = $("#pick-protocol")?.value ?? "";
      for (const row of body.rows) row.hidden = Boolean(protocol) && row.dataset.protocol !== protocol;
      const seen = [...body.rows].filter((row) => !row.hidden);
      boxes.forEach((box) => {
        const column = +box.dataset.toggle;
        const empty = seen.every((row) => !$(".chip", row.cells[column]));
        for (const row of picture.rows) row.cells[column].hidden = !box.checked || empty;
      });
    };
    for (const control of [...boxes, $("#pick-protocol")]) control?.addEventListener("change", showColumns);
    showColumns();

    // --- swipe ---
    const dialog = $("#swipe"), range = $("#swipe-range"), stage = $(".stage", dialog);
    const [left, right] = [$("#swipe-left"), $("#swipe-right")];
    const scenes = [...new Set(chips.map((chip) => chip.dataset.scene))];
    let scene = scenes[0];
    const split = () => {
      $("#image-right").style.clipPath = `inset(0 0 0 ${range.value}%)`;
      $(".seam", stage).style.left = `${range.value}%`;
      range.setAttribute("aria-valuetext", `${range.value} % ${left.selectedOptions[0].textContent}`);
    };
    const show = () => {
      for (const select of [left, right])
        for (const option of select.options) option.disabled = !first[scene][option.value];
      for (const [select, image] of [[left, "#image-left"], [right, "#image-right"]]) {
        if (!select.selectedOptions[0] || select.selectedOptions[0].disabled)
          select.value = Object.keys(first[scene])[0];
        $(image).src = source(view, scene, select.value);
        $(image).alt = `${scene}, ${select.selectedOptions[0].textContent}`;
      }
      $("#swipe-title").textContent = chips.find((chip) => chip.dataset.scene === scene).dataset.scenetitle;
      split();
    };
    const step = (by) => { scene = scenes[(scenes.indexOf(scene) + by + scenes.length) % scenes.length]; show(); };
    for (const chip of chips)
      chip.addEventListener("click", () => {
        scene = chip.dataset.scene;
        const others = Object.keys(first[scene]);
        const column = chip.dataset.column;
        right.value = others.includes("Cloud-free") && column !== "Cloud-free" ? "Cloud-free" : others[0];
        left.value = column;
        if (column === "Cloud-free") [left.value, right.value] = [others[0], column];
        range.value = 50;
        show();
        dialog.showModal();
        range.focus();
      });
    for (const control of [left, right]) control.addEventListener("change", show);
    range.addEventListener("input", split);
    $("#swipe-next").addEventListener("click", () => step(1));
    $("#swipe-close").addEventListener("click", () => dialog.close());
    $("#swipe-previous").addEventListener("click", () => step(-1));
    const drag = (event) => {
      const box = stage.getBoundingClientRect();
      range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
      split();
    };
    stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag(event); });
    stage.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
  }

  // --- charts --------------------------------------------------------------------------
  const chartData = $("#chart-data") ? data("#chart-data") : { methods: [], pixels: [] };
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const isShown = (model) => $(`[data-method="${CSS.escape(model)}"]`)?.checked ?? true;
  const short = (value) => (value == null ? "–" : `${+value.toPrecision(3)}`);
  const draw = (place, { x, xLabel, yLabel, xText, log, ceiling, series }) => {
    place.chart?.destroy();
    place.replaceChildren();
    const axis = (label) => ({
      label, stroke: style("--ink"), grid: { stroke: style("--rule"), width: 1 },
      ticks: { stroke: style("--rule") }, font: "12px system-ui", labelFont: "12px system-ui",
      values: (_, splits) => splits.map((value) => (value == null ? "" : `${+value.toPrecision(4)}`)),
    });
    place.chart = new uPlot({
      width: place.clientWidth, height: 340,
      scales: {
        x: { time: false, range: (_, low, high) => { const pad = (high - low || 1) * 0.03; return [low - pad, high + pad]; } },
        y: { distr: log ? 3 : 1, range: ceiling ? [0, ceiling] : undefined },
      },
      axes: [axis(xLabel), { ...axis(yLabel), size: 62 }],
      series: [{ label: xLabel, value: (_, value, __, i) => (i == null ? "–" : xText(i)) },
        ...series.map((one) => ({
          label: one.label, stroke: one.colour, width: one.width ?? 0, dash: one.dash,
          paths: one.width ? undefined : () => null, spanGaps: false,
          points: { show: true, size: one.size ?? 7, fill: one.colour, stroke: one.colour },
          value: (_, value) => short(value),
        }))],
      legend: { live: true, isolate: false },
      cursor: { drag: { x: false, y: false } },
    }, [x, ...series.map((one) => one.values)], place);
  };
  const explore = $("#explore-chart"), spectrum = $("#spectrum-chart");
  const drawExplore = () => {
    if (!explore) return;
    const metric = $("#explore-metric").value, axis = $("#explore-x").value;
    const protocol = $("#explore-protocol").value, found = chartData.scenes;
    const order = found.map((_, i) => i).filter((i) => found[i].protocol === protocol && found[i][axis] !== null)
      .sort((a, b) => found[a][axis] - found[b][axis]);
    const log = chartData.log.includes(metric);
    const series = chartData.methods.filter((method) => isShown(method.id) && chartData.values[metric][method.id])
      .map((method) => ({
        label: method.title, colour: method.colour,
        values: order.map((i) => {
          const value = chartData.values[metric][method.id][i];
          return log && !(value > 0) ? null : value;
        }),
      })).filter((one) => one.values.some((value) => value !== null));
    const floor = metric === "MAE" && chartData.floors[protocol];
    if (floor) series.push({ label: "floor of the pairs", colour: style("--ink"), width: 1.2, dash: [2, 4], size: 1, values: order.map(() => floor) });
    draw(explore, {
      x: order.map((i) => found[i][axis]), xLabel: $("#explore-x").selectedOptions[0].textContent,
      yLabel: chartData.metrics[metric], log, series,
      xText: (i) => `${found[order[i]][axis]}, ${found[order[i]].title}`,
    });
  };
  const drawSpectrum = () => {
    if (!spectrum) return;
    const pixel = chartData.pixels[+$("#pick-pixel").value];
    const truth = pixel.values["Cloud-free"];
    const rows = [["Truth", truth, null], ["Cloudy input", pixel.values.Cloudy, null]];
    const series = [
      { label: "Truth", colour: style("--ink"), values: truth, width: 3, size: 5 },
      { label: "Cloudy input", colour: style("--soft"), values: pixel.values.Cloudy, width: 1, dash: [6, 4], size: 4 },
    ];
    for (const method of chartData.methods) {
      if (!pixel.values[method.id]) continue;
      rows.push([method.title, pixel.values[method.id], pixel.mae[method.id]]);
      if (isShown(method.id))
        series.push({ label: method.title, colour: method.colour, values: pixel.values[method.id], width: 1.5, size: 6 });
    }
    draw(spectrum, {
      x: pixel.nm, xLabel: "wavelength (nm)", yLabel: "reflectance", series,
      ceiling: 2 * Math.max(...truth) || undefined, xText: (i) => `${pixel.nm[i]}, ${pixel.bands[i]}`,
    });
    const table = $("#spectrum-table"), head = make("tr");
    for (const text of ["Spectrum", ...pixel.bands, "MAE"]) head.append(make("th", { scope: "col", textContent: text }));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...rows.map(([title, values, mae]) => {
      const row = make("tr");
      row.append(make("th", { scope: "row", textContent: title }));
      for (const value of [...values, mae])
        row.append(make("td", { className: "number", textContent: value === null ? "–" : value.toFixed(4) }));
      return row;
    }));
  };
  const drawCharts = () => { drawExplore(); drawSpectrum(); };
  for (const id of ["#explore-metric", "#explore-x", "#explore-protocol"]) $(id)?.addEventListener("change", drawExplore);
  $("#pick-pixel")?.addEventListener("change", drawSpectrum);
  for (const box of $$("[data-method]")) box.addEventListener("change", drawCharts);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawCharts(); } });
  drawCharts();

  // --- the contents bar follows ---------------------------------------------------------
  const links = $$("nav a"), sections = links.map((link) => $(link.hash)).filter(Boolean);
  const follow = () => {
    const current = sections.findLast((section) => section.getBoundingClientRect().top < 120);
    for (const link of links) {
      const here = current && link.hash === `#${current.id}`;
      if (here === (link.getAttribute("aria-current") === "true")) continue;
      link.toggleAttribute("aria-current", here);
      if (!here) continue;
      link.setAttribute("aria-current", "true");
      const list = link.closest("ul");
      list.scrollLeft = link.offsetLeft - list.offsetLeft - 40;
    }
  };
  let asked = false;
  addEventListener("scroll", () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; follow(); });
  }, { passive: true });

  // --- anchors -------------------------------------------------------------------------
  const openAnchor = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", openAnchor);
  openAnchor();
})();
