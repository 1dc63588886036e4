// Finding, hiding, sorting and pointing. Everything is on the page without it.
"use strict";
(() => {
  const all = (query, from = document) => [...from.querySelectorAll(query)];
  const tools = document.getElementById("tools");
  const tip = document.getElementById("tip");
  const owned = all("[data-arm]");
  const charts = all("svg[data-pitch]");

  // Titles become one tooltip at once, also under a finger.
  for (const mark of all(".mark > title")) {
    mark.parentNode.dataset.tip = mark.textContent;
    mark.remove();
  }

  // Which arms are shown.
  const wanted = () => {
    const words = tools.querySelector("#find").value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    const without = words.filter((word) => word[0] === "-" && word[1]).map((word) => word.slice(1));
    const having = words.filter((word) => word[0] !== "-");
    const kinds = new Set(all(":checked[type=checkbox]", tools).map((box) => box.value));
    return (element) => {
      const name = element.dataset.arm.toLowerCase();
      return kinds.has(element.dataset.kind) && !without.some((word) => name.includes(word))
        && (!having.length || having.some((word) => name.includes(word)));
    };
  };

  // Rows close up: each chart puts what is shown into the order asked for, under its heading.
  const layOut = (chart) => {
    const pitch = Number(chart.dataset.pitch);
    const by = tools.querySelector("#order").value;
    const rows = new Map();
    for (const mark of all(".mark[data-row]", chart)) {
      const row = Number(mark.dataset.row);
      if (!rows.has(row)) rows.set(row, []);
      rows.get(row).push(mark);
    }
    const blocks = [[]];
    for (const [row, marks] of [...rows].sort((a, b) => a[0] - b[0])) {
      if (marks[0].dataset.kind === "heading") blocks.push([[row, marks]]);
      else if (!marks[0].classList.contains("off")) blocks[blocks.length - 1].push([row, marks]);
    }
    let place = 0;
    for (const block of blocks) {
      const heads = block.filter(([, marks]) => marks[0].dataset.kind === "heading");
      const lines = block.filter(([, marks]) => marks[0].dataset.kind !== "heading");
      for (const [, marks] of heads) marks[0].classList.toggle("off", !lines.length);
      if (by === "arm") lines.sort((a, b) => a[1][0].dataset.arm.localeCompare(b[1][0].dataset.arm));
      for (const [row, marks] of [...(lines.length ? heads : []), ...lines]) {
        for (const mark of marks) mark.setAttribute("transform", `translate(0 ${(place - row) * pitch})`);
        place += 1;
      }
    }
    const box = chart.viewBox.baseVal;
    chart.dataset.height ||= box.height;
    const height = chart.dataset.height - (Number(chart.dataset.rows) - place) * pitch;
    chart.setAttribute("viewBox", `0 0 ${box.width} ${height}`);
  };

  const update = () => {
    const shown = wanted();
    for (const element of owned) element.classList.toggle("off", !shown(element));
    for (const chart of charts) layOut(chart);
    const names = new Set(owned.map((element) => element.dataset.arm));
    const left = new Set(owned.filter(shown).map((element) => element.dataset.arm));
    document.getElementById("count").textContent = `${left.size} of ${names.size} shown`;
  };
  if (owned.length) {
    tools.hidden = false;
    tools.addEventListener("input", update);
    tools.addEventListener("submit", (event) => event.preventDefault());
    update();
  }

  // Pointing at an arm shows it in every figure; a click keeps it so.
  let kept = "";
  const point = (arm) => {
    for (const element of owned) element.classList.toggle("hot", element.dataset.arm === arm);
    for (const chart of all("figure svg")) chart.classList.toggle("some", Boolean(arm) && all(".hot", chart).length > 0);
  };
  const tell = (text, event) => {
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY - height - 12 < 4 ? event.clientY + 16 : event.clientY - height - 12}px`;
  };
  const cell = (chart, event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    const [left, top, width, height] = JSON.parse(chart.dataset.box);
    const names = JSON.parse(chart.dataset.names), groups = JSON.parse(chart.dataset.groups);
    const row = Math.floor((at.y - top) / height * names.length);
    const column = Math.floor((at.x - left) / width * groups.length);
    if (!names[row] || !groups[column]) return "";
    return `${names[row]}, ${groups[column]}: ${JSON.parse(chart.dataset.heat)[row][column]} % ${chart.dataset.unit}`;
  };
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.(".mark[data-tip]");
    const heat = event.target.closest?.("svg[data-heat]");
    tell(mark ? mark.dataset.tip : heat ? cell(heat, event) : "", event);
  });
  document.addEventListener("pointerover", (event) => point(event.target.closest?.("[data-arm]")?.dataset.arm || kept));
  document.addEventListener("click", (event) => {
    const arm = event.target.closest?.("[data-arm]")?.dataset.arm || "";
    if (arm) point(kept = kept === arm ? "" : arm);
  });

  // Tables sort by what a cell is worth: 41.3 M, 3.4 h, < 0.001.
  const UNITS = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, ms: 1e-3, s: 1, min: 60, h: 3600, d: 86400 };
  const worth = (text) => {
    const found = /^[<>(]?\s*([+\u2212-]?[\d.,]+)\s*([A-Za-z]+)?/.exec(text);
    if (!found) return null;
    return Number(found[1].replace("\u2212", "-").replace(/,/g, "")) * (UNITS[found[2]] || 1);
  };
  const compare = (a, b) => {
    const [x, y] = [worth(a), worth(b)];
    if (x !== null && y !== null) return x - y;
    if (x !== null || y !== null) return x !== null ? 1 : -1;
    return a.localeCompare(b);
  };
  for (const table of all("table")) {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => row.cells[column].textContent;
        const rows = [...table.tBodies[0].rows].sort((a, b) => compare(text(a), text(b)) * (down ? -1 : 1));
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
