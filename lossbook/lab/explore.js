// Moves the curves of one explorable figure. Everything it needs is in the figure: the values that torch
// computed for every position of the controls (float32, base64), and the axes that Python drew.
(function (figure) {
  const spec = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const inputs = [...figure.querySelectorAll("[data-control]")];
  const outputs = [...figure.querySelectorAll("[data-output]")];
  const plots = [...figure.querySelectorAll("svg[data-panel]")];
  const readout = figure.querySelector("[data-readout]");

  const decode = (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  };
  const x = decode(spec.x);
  for (const curve of spec.curves) curve.values = decode(curve.data);

  const position = (control) => Number(inputs[control].value);
  const shown = (control) => spec.controls[control].shown[position(control)];

  // The values of a curve are stored row-major: its controls, then the panels, then the points.
  function slice(curve, panel) {
    let stop = 0;
    for (const control of curve.controls) stop = stop * spec.controls[control].shown.length + position(control);
    const start = (stop * spec.panels + panel) * x.length;
    return curve.values.subarray(start, start + x.length);
  }

  function draw() {
    outputs.forEach((output, control) => { output.textContent = shown(control); });
    inputs.forEach((input, control) => input.setAttribute("aria-valuetext", shown(control)));
    spec.curves.forEach((curve, index) => {
      const label = curve.label.replace(/\{(\w+)\}/g, (whole, name) =>
        shown(spec.controls.findIndex((control) => control.name === name)));
      figure.querySelector(`[data-legend="${index}"]`).textContent = label;
      plots.forEach((plot, panel) => {
        const [left, bottom, across, up] = plot.dataset.axes.split(" ").map(Number);
        const values = slice(curve, panel);
        let points = "";
        for (let i = 0; i < x.length; i++)
          if (Number.isFinite(values[i])) points += `${left + across * x[i]},${bottom + up * values[i]} `;
        plot.querySelector(`[data-curve="${index}"]`).setAttribute("points", points.trim());
      });
    });
  }

  // Pointing at a panel reads every curve off at that place.
  function point(plot, panel, event) {
    const [left, , across] = plot.dataset.axes.split(" ").map(Number);
    const box = plot.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * plot.viewBox.baseVal.width;
    const target = (place - left) / across;
    let nearest = 0;
    x.forEach((value, i) => { if (Math.abs(value - target) < Math.abs(x[nearest] - target)) nearest = i; });
    const marker = plot.querySelector("[data-marker]");
    marker.setAttribute("x1", left + across * x[nearest]);
    marker.setAttribute("x2", left + across * x[nearest]);
    marker.style.visibility = "visible";
    readout.textContent = `at ${x[nearest].toPrecision(3)}: ` + spec.curves.map((curve, index) =>
      `${figure.querySelector(`[data-legend="${index}"]`).textContent} ${slice(curve, panel)[nearest].toPrecision(4)}`,
    ).join(" · ");
  }

  inputs.forEach((input) => input.addEventListener("input", draw));
  plots.forEach((plot, panel) => {
    plot.addEventListener("pointermove", (event) => point(plot, panel, event));
    plot.addEventListener("pointerleave", () => {
      plot.querySelector("[data-marker]").style.visibility = "hidden";
      readout.textContent = "";
    });
  });
  draw();
})(document.getElementById("FIGURE"));
