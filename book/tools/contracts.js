// The matrix under the keyboard: one stop for the tab key, then the arrow keys from cell to cell; and the cell
// under the mouse or the keyboard is said in words below it.
{
  const output = document.currentScript.previousElementSibling;
  const matrix = output.previousElementSibling;
  const table = matrix.querySelector("table");
  const properties = table.tHead.rows[1].cells;
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const isShown = (element) => element.getClientRects().length > 0;
  const linked = (cells) => [...cells].filter((cell) => isShown(cell) && cell.querySelector("a"));
  const lines = () => [...table.rows].filter((row) => row.cells.length === properties.length && isShown(row));

  // The cell one step away: along the row to the next shown one, across the rows in the same column.
  function neighbor(cell, [right, down]) {
    if (right) {
      const cells = linked(cell.parentElement.cells);
      return cells[cells.indexOf(cell) + right];
    }
    const rows = lines();
    return rows[rows.indexOf(cell.parentElement) + down]?.cells[cell.cellIndex];
  }

  function say(event) {
    const cell = event.target.closest("td, th[scope=row]");
    const link = cell?.querySelector("a");
    if (!link) return;
    const property = cell.cellIndex ? ` · ${properties[cell.cellIndex].textContent}: ${link.ariaLabel}` : "";
    output.textContent = cell.parentElement.cells[0].textContent + property;
  }

  for (const link of table.querySelectorAll("a")) link.tabIndex = -1;
  matrix.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS) || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const cell = document.activeElement.closest("td, th");
    const next = table.contains(cell) ? neighbor(cell, ARROWS[event.key]) : lines()[1]?.cells[0];
    next?.querySelector("a")?.focus();
  });
  matrix.addEventListener("focusin", say);
  matrix.addEventListener("mouseover", say);
}
