// Tables that say so can be sorted by their headings. Without this script they stand as they were drawn.
"use strict";

const valueOf = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
};

const order = (kind, down) => (a, b) => {
  if (a === "" || b === "") {
    return (a === "") - (b === "");
  }
  const way = kind === "number" ? Number(a) - Number(b) : a.localeCompare(b);
  return down ? -way : way;
};

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const kind = head.dataset.sort;
    if (!kind) {
      return;
    }
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const before = order(kind, down);
      const rows = [...body.rows];
      rows.sort((a, b) => before(valueOf(a, column), valueOf(b, column)));
      body.append(...rows);
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) {
    details.open = true;
  }
});
