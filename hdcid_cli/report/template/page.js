"use strict";
// Tables sort by a click on the name of a column: down, up, and as they were. Rows that frame the others stay below.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const moving = rows.filter(row => !row.classList.contains("framing"));
  const framing = rows.filter(row => row.classList.contains("framing"));
  for (const button of table.querySelectorAll("th button")) {
    const head = button.parentElement;
    const column = Number(head.dataset.column);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const first = numeric ? "descending" : "ascending";
      const second = numeric ? "ascending" : "descending";
      const before = head.getAttribute("aria-sort");
      const now = before === null ? first : before === first ? second : null;
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      const sorted = [...moving];
      if (now) {
        head.setAttribute("aria-sort", now);
        const sign = now === "ascending" ? 1 : -1;
        const value = row => {
          const cell = row.querySelector(`[data-column="${column}"]`);
          return numeric ? cell.dataset.value : cell.textContent;
        };
        sorted.sort((one, other) => {
          const [a, b] = [value(one), value(other)];
          if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);  // what is missing stays last
          return sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
        });
      }
      body.append(...sorted, ...framing);
    });
  }
}
// What is folded is printed all the same.
const folded = [...document.querySelectorAll("details:not([open])")];
addEventListener("beforeprint", () => folded.forEach(each => each.open = true));
addEventListener("afterprint", () => folded.forEach(each => each.open = false));
