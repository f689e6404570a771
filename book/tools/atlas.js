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

  // The nearest mark in a direction; a step across rows counts more than one along them.
  function next(from, [right, down]) {
    const middle = (mark) => { const box = mark.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };
    const [x, y] = middle(from);
    let best = from;
    let least = Infinity;
    for (const mark of marks.filter((mark) => !mark.classList.contains("dimmed"))) {
      const [across, along] = [middle(mark)[0] - x, middle(mark)[1] - y];
      const ahead = right ? right * across : down * along;
      const aside = Math.abs(right ? along : across);
      if (ahead > 1 && (right ? aside < 2 : true)) {
        const far = right ? ahead : 10 * ahead + aside;
        if (far < least) [best, least] = [mark, far];
      }
    }
    return best;
  }

  const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  picture.addEventListener("keydown", (event) => {
    const mark = event.target.closest("td a");
    if (!mark || !(event.key in arrows)) return;
    event.preventDefault();
    const chosen = next(mark, arrows[event.key]);
    reach(chosen);
    chosen.focus();
  });

  document.querySelector(".lossbook-filters").addEventListener("filtered", () => {
    for (const mark of marks) mark.classList.toggle("dimmed", entry(mark).hidden);
  });
  reach(marks[0]);
});
