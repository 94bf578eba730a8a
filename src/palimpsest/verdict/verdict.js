"use strict";
const table = document.getElementById("records");
const rows = [...table.tBodies[0].rows];
const word = document.getElementById("word");
const format = document.getElementById("format");
const back = document.getElementById("back");
const count = document.getElementById("count");

function show() {
  const wanted = word.value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const fits =
      (!wanted || row.textContent.toLowerCase().includes(wanted)) &&
      (!format.value || row.dataset.format === format.value) &&
      (!back.checked || row.dataset.back === "yes");
    row.hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${rows.length} lines shown`;
}

function sort(button) {
  const head = button.closest("th");
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
  const compare = (a, b) =>
    button.dataset.kind === "number" ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
  rows.sort((a, b) => (down ? -1 : 1) * compare(value(a), value(b)));
  table.tBodies[0].append(...rows);
}

for (const control of [word, format, back]) control.addEventListener("input", show);
for (const button of table.tHead.querySelectorAll("button")) button.addEventListener("click", () => sort(button));
document.getElementById("controls").hidden = false;
show();
