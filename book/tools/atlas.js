// The picture of the atlas: says which paper is pointed at, pales those that the filters leave out, and makes
// of its hundreds of marks one stop of the tab key, in which the arrow keys move.
document.addEventListener("DOMContentLoaded", () => {
  const picture = document.querySelector(".atlas");
  const marks = [...picture.querySelectorAll("td a")];
  const output = picture.querySelector("output");
  const entry = (mark) => document.getElementById(mark.hash.slice(1));

  for (const kind of ["pointerover", "focusin"])
    picture.addEventListener(kind, (event) => {
      const mark = event.target.closest("td a");
      if (mark) output.textContent = mark.title;
    });

  function reach(chosen) {
    for (const mark of marks) mark.tabIndex = mark === chosen ? 0 : -1;
  }

  // The mark before or after, or the nearest one of the rows above or below.
  function next(from, key) {
    const pale = (mark) => mark !== from && mark.classList.contains("dimmed");
    const others = marks.filter((mark) => !pale(mark));
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (step) return others[others.indexOf(from) + step] ?? from;
    const side = key === "ArrowUp" ? Node.DOCUMENT_POSITION_PRECEDING : Node.DOCUMENT_POSITION_FOLLOWING;
    const row = from.closest("tr");
    const start = from.getBoundingClientRect();
    const distance = (mark) => {
      const box = mark.getBoundingClientRect();
      return 10 * Math.abs(box.y - start.y) + Math.abs(box.x - start.x);
    };
    return others
      .filter((mark) => row.compareDocumentPosition(mark.closest("tr")) & side)
      .reduce((best, mark) => (best && distance(best) <= distance(mark) ? best : mark), null) ?? from;
  }

  picture.addEventListener("keydown", (event) => {
    const mark = event.target.closest("td a");
    if (!mark || !/^Arrow(Left|Right|Up|Down)$/.test(event.key)) return;
    event.preventDefault();
    const chosen = next(mark, event.key);
    reach(chosen);
    chosen.focus();
  });

  document.querySelector(".lossbook-filters").addEventListener("filtered", () => {
    for (const mark of marks) mark.classList.toggle("dimmed", entry(mark).hidden);
  });
  reach(marks[0]);
});
