"use strict";

// ---- Tables: the head of a column is a button that sorts; long tables have a field that filters.

const compareTexts = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" }).compare;
const FILTER_FROM = 9; // rows

/** Sort the rows of a table by a column; rows without a value stay last in both directions. */
function sortRows(table, column, descending) {
  const head = table.tHead.rows[0].cells[column];
  const numeric = head.classList.contains("numeric");
  const key = (row) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.trim() || null;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  const sign = descending ? -1 : 1;
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (numeric ? a - b : compareTexts(a, b));
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

function filterRows(table, text, count) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const content = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => content.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  count.value = `${shown} of ${table.tBodies[0].rows.length} rows`;
}

/** What the reader did to the tables of a page that loads itself again. */
const remembered = {
  key: `tables of ${location.pathname}`,
  read() {
    try {
      return JSON.parse(sessionStorage.getItem(this.key)) || {};
    } catch {
      return {};
    }
  },
  write(name, value) {
    if (!document.body.dataset.reload) return;
    try {
      sessionStorage.setItem(this.key, JSON.stringify({ ...this.read(), [name]: value }));
    } catch {
      // The browser keeps nothing for this page; it opens as it was written.
    }
  },
};

function prepareTable(table, index) {
  const before = document.body.dataset.reload ? remembered.read() : {};
  const rows = table.tBodies[0].rows;
  if (rows.length < 2) return;
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    if (head.dataset.hint) button.dataset.tip = head.dataset.hint;
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      sortRows(table, column, descending);
      remembered.write(`sort ${index}`, [column, descending]);
    });
  }
  const sorted = before[`sort ${index}`];
  if (sorted && sorted[0] < table.tHead.rows[0].cells.length) sortRows(table, ...sorted);
  if (rows.length < FILTER_FROM) return;
  const label = document.createElement("label");
  label.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  const count = document.createElement("output");
  label.append("Filter", input, count);
  table.closest(".table").prepend(label);
  input.value = before[`filter ${index}`] || "";
  input.addEventListener("input", () => {
    filterRows(table, input.value, count);
    remembered.write(`filter ${index}`, input.value);
  });
  filterRows(table, input.value, count);
}

// ---- Hints: shown while the pointer or the keyboard is at an element; Escape hides them.

const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
let tipped = null;

function showTip(element) {
  hideTip();
  tipped = element;
  tip.textContent = element.dataset.tip;
  tip.hidden = false;
  element.setAttribute("aria-describedby", "tip");
  const place = element.getBoundingClientRect();
  const below = place.bottom + 6;
  const fits = below + tip.offsetHeight < innerHeight;
  tip.style.top = `${Math.max(4, fits ? below : place.top - tip.offsetHeight - 6)}px`;
  tip.style.left = `${Math.max(4, Math.min(place.left, innerWidth - tip.offsetWidth - 12))}px`;
}

function hideTip() {
  if (tipped) tipped.removeAttribute("aria-describedby");
  tipped = null;
  tip.hidden = true;
}

function tippedBy(event) {
  return event.target instanceof Element ? event.target.closest("[data-tip]") : null;
}

function prepareTips() {
  document.body.append(tip);
  for (const name of ["mouseover", "focusin"]) {
    document.addEventListener(name, (event) => {
      const element = tippedBy(event);
      if (element && element !== tipped) showTip(element);
    });
  }
  document.addEventListener("mouseout", (event) => {
    if (tipped && tippedBy(event) === tipped && !tipped.contains(event.relatedTarget)) hideTip();
  });
  document.addEventListener("focusout", hideTip);
  document.addEventListener("scroll", hideTip, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
}

// ---- Charts: drawn by Plotly, which the page holds compressed; their colours follow the theme, and paper is light.

const SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const dark = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

function themeOfCharts() {
  const isDark = dark.matches && !printing;
  const text = isDark ? "#e8eaed" : "#1c1e21";
  const line = isDark ? "#363c43" : "#d5d9de";
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: isDark ? "#7c848d" : "#6b727a", automargin: true };
  return {
    layout: {
      colorway: SERIES,
      font: { color: text, family: "system-ui, 'Noto Sans', sans-serif", size: 13 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: axis,
      yaxis: axis,
      hoverlabel: { bgcolor: isDark ? "#1d2125" : "#ffffff", font: { color: text }, align: "left", namelength: -1 },
      legend: { bgcolor: "rgba(0,0,0,0)" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: text },
      colorscale: { sequential: "Cividis", diverging: "RdBu" },
      margin: { l: 60, r: 20, t: 32, b: 50 },
    },
    data: { parcoords: [{ labelfont: { color: text }, tickfont: { color: text }, rangefont: { color: text } }] },
  };
}

/** The text of Plotly's source, which the page holds as base64 of gzip. */
async function unpacked(element) {
  const bytes = Uint8Array.from(atob(element.textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function drawCharts() {
  const packed = document.getElementById("plotly");
  const places = [...document.querySelectorAll("[data-chart]")];
  if (!packed) return;
  if (typeof DecompressionStream === "undefined") {
    for (const place of places) {
      place.className = "no-chart";
      place.textContent = "This browser is too old to draw the chart; its numbers or its content in words stand below.";
    }
    return;
  }
  const script = document.createElement("script");
  script.textContent = await unpacked(packed);
  document.head.append(script);
  packed.remove();
  // The tools of a chart cover the titles at its right: they are there for a pointer that hovers, and only then.
  const tools = matchMedia("(hover: hover)").matches ? "hover" : false;
  const config = { displaylogo: false, responsive: true, displayModeBar: tools };
  const drawn = [];
  const draw = async (place) => {
    if (drawn.includes(place)) return;
    drawn.push(place);
    const { data, layout } = JSON.parse(document.getElementById(place.dataset.chart).textContent);
    await Plotly.newPlot(place, data, { ...layout, template: themeOfCharts() }, config);
  };
  for (const place of places) if (!place.closest("[hidden]")) await draw(place);
  for (const choice of document.querySelectorAll(".choice")) {
    const select = choice.querySelector("select");
    const show = () => {
      for (const [index, part] of [...choice.querySelectorAll(".chosen")].entries()) {
        part.hidden = index !== Number(select.value);
        if (!part.hidden) draw(part.querySelector("[data-chart]"));
      }
    };
    select.addEventListener("change", show);
    show(); // the browser may have kept the choice when the page was loaded again
  }
  const restyle = () => {
    for (const place of drawn) Plotly.relayout(place, { template: themeOfCharts() });
  };
  dark.addEventListener("change", restyle);
  addEventListener("beforeprint", () => {
    printing = true;
    restyle();
    for (const place of drawn) if (!place.closest("[hidden]")) Plotly.Plots.resize(place);
  });
  addEventListener("afterprint", () => {
    printing = false;
    restyle();
    for (const place of drawn) if (!place.closest("[hidden]")) Plotly.Plots.resize(place);
  });
}

// ---- Pages of what still runs load themselves again, unless the reader unticks the box.

function prepareReload() {
  const seconds = Number(document.body.dataset.reload);
  if (!seconds) return;
  const box = document.getElementById("reload");
  box.checked = remembered.read().reload !== false;
  box.addEventListener("change", () => remembered.write("reload", box.checked));
  const timer = setInterval(() => {
    if (!box.checked || document.hidden) return;
    clearInterval(timer);
    location.reload();
  }, 1000 * seconds);
}

for (const [index, table] of [...document.querySelectorAll("table")].entries()) prepareTable(table, index);
prepareTips();
drawCharts().finally(() => {
  prepareReload(); // counts from here, so that a slow computer shows every page
  document.documentElement.dataset.ready = "yes";
});
