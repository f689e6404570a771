// Draws and turns one scene. Everything it needs is in the figure: the values that torch computed for every
// stop of the controls (float32, base64), and the map (x - center) * scale that takes them into the unit ball.
(function (figure) {
  const spec = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const inputs = [...figure.querySelectorAll("[data-control]")];
  const outputs = [...figure.querySelectorAll("[data-output]")];
  const readout = figure.querySelector("[data-readout]");
  const svg = figure.querySelector("svg[data-scene]");
  const handle = svg.querySelector("[data-handle]");
  const layer = svg.querySelector("[data-items]");
  const flat = spec.dimension === 2;
  const middle = svg.viewBox.baseVal.width / 2;
  let [azimuth, elevation] = spec.view;

  const decode = (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  };
  for (const part of Object.values(spec.parts)) part.values = decode(part.data);

  const position = (control) => Number(inputs[control].value);
  const shown = (control) => spec.controls[control].shown[position(control)];

  // The values of a part at the present stops; they are stored row-major over the part's own controls.
  function current(name) {
    const part = spec.parts[name];
    if (!part) return [];
    let stop = 0;
    for (const control of part.controls) stop = stop * spec.controls[control].shown.length + position(control);
    return [...part.values.subarray(stop * part.size, (stop + 1) * part.size)];
  }

  const rows = (values) =>
    Array.from({ length: values.length / spec.dimension }, (_, i) =>
      values.slice(i * spec.dimension, (i + 1) * spec.dimension));
  const coordinates = () => rows(current("points"));
  const readouts = () => {
    const numbers = current("readouts");
    return Object.fromEntries(spec.readouts.map((name, i) => [name, numbers[i]]));
  };

  const place = (row) => [0, 1, 2].map((k) => ((row[k] ?? 0) - spec.center[k]) * spec.scale[k]);
  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const minus = (p, q) => p.map((value, k) => value - q[k]);

  // The camera of this view: a function from the unit ball to drawn x and y, and to the depth towards the reader.
  function camera() {
    const [a, e] = [azimuth * Math.PI / 180, elevation * Math.PI / 180];
    const [c, s, cc, ss] = [Math.cos(a), Math.sin(a), Math.cos(e), Math.sin(e)];
    return ([x, y, z]) => [
      middle + spec.unit * (c * y - s * x),
      middle - spec.unit * (cc * z - ss * (c * x + s * y)),
      cc * (c * x + s * y) + ss * z,
    ];
  }

  const near = (depth) => flat ? 1 : (1 + depth) / 2;
  function opacity(depth) {
    if (spec.surface) return 1;
    const behind = spec.sphere ? Math.min(Math.max(-depth / 0.15, 0), 1) : 0;
    return ((0.4 + 0.6 * near(depth)) * (1 - 0.6 * behind)).toFixed(3);
  }

  // One item for each point, each piece of a line and each quad of the surface: its corners in the unit ball,
  // and how to set its element from their projections.
  function item(tag, paint, lift = 0) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    const set = (attributes) => {
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    };
    return { element, set, paint, lift, corners: [], depth: 0 };
  }

  const lift = spec.surface ? spec.surface.lift : 0;
  const [across, along] = spec.surface ? spec.surface.shape : [1, 1];
  const quads = Array.from({ length: (across - 1) * (along - 1) }, () =>
    item("polygon", (set, corners) =>
      set({ points: corners.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ") })));

  const vertices = spec.parts.lines ? spec.parts.lines.size / spec.dimension : 0;
  const segments = Array.from({ length: Math.max(vertices - 1, 0) }, () =>
    item("line", (set, [p, q], depth) =>
      set({
        x1: p[0].toFixed(2), y1: p[1].toFixed(2), x2: q[0].toFixed(2), y2: q[1].toFixed(2),
        "stroke-opacity": opacity(depth),
      }), lift));

  const color = (group) => spec.palette[group % spec.palette.length];
  const circles = spec.groups.map((group, index) => {
    const hollow = group >= spec.palette.length;
    const circle = item("circle", (set, [[x, y]], depth) =>
      set({
        cx: x.toFixed(3), cy: y.toFixed(3), opacity: opacity(depth),
        r: (spec.radius * (flat ? 1 : 0.7 + 0.5 * near(depth))).toFixed(2),
      }), lift);
    circle.set({ "data-point": index, fill: hollow ? "none" : color(group) });
    circle.set(hollow ? { stroke: color(group), style: "stroke-width: 1.6" } : { stroke: "currentColor", "stroke-opacity": 0.35 });
    return circle;
  });

  let items = [...quads, ...segments, ...circles];
  layer.append(...items.map(({ element }) => element));

  function colorQuad(quad) {
    const { colors, heights: [low, high], light } = spec.surface;
    const [p, q] = [minus(quad.corners[2], quad.corners[0]), minus(quad.corners[3], quad.corners[1])];
    const normal = [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
    const lit = Math.max(normal.reduce((sum, n, k) => sum + n * light[k], 0) / Math.hypot(...normal), 0);
    const height = (mean(quad.corners.map((corner) => corner[2])) - low) / (high - low || 1);
    const shade = colors[Math.round(height * (colors.length - 1))];
    quad.set({ fill: `rgb(${shade.map((part) => Math.min(Math.round(part * (0.72 + 0.36 * lit)), 255)).join(" ")})` });
  }

  // Puts everything where the present stops want it.
  function settle() {
    outputs.forEach((output, control) => { output.textContent = shown(control); });
    inputs.forEach((input, control) => input.setAttribute("aria-valuetext", shown(control)));
    if (readout)
      readout.textContent = Object.entries(readouts()).map(([name, value]) =>
        `${name} ${Number.isFinite(value) ? Number(value.toPrecision(4)) : "–"}`).join("  ·  ");

    coordinates().forEach((row, i) => { circles[i].corners = [place(row)]; });
    const line = rows(current("lines")).map(place);
    let polyline = 0;
    segments.forEach((segment, i) => {
      if (line[i][0] === Infinity) polyline += 1; // the row that ends one
      segment.corners = [line[i], line[i + 1]];
      segment.set({ stroke: spec.lineGroups ? color(spec.lineGroups[polyline] ?? 0) : "currentColor" });
    });
    const surface = current("surface");
    const corner = (i, j) =>
      place([surface[i], surface[across + j], surface[across + along + i * along + j]]);
    quads.forEach((quad, index) => {
      const [i, j] = [Math.floor(index / (along - 1)), index % (along - 1)];
      quad.corners = [corner(i, j), corner(i + 1, j), corner(i + 1, j + 1), corner(i, j + 1)];
    });
    for (const one of items) {
      one.visible = one.corners.flat().every(Number.isFinite);
      one.element.style.display = one.visible ? "" : "none";
    }
    quads.filter((quad) => quad.visible).forEach(colorQuad);
    draw();
  }

  // Draws the view: from far to near, as a painter does.
  function draw() {
    const project = camera();
    for (const one of items) {
      if (!one.visible) continue;
      const corners = one.corners.map(project);
      const depth = mean(corners.map((corner) => corner[2]));
      one.depth = depth + one.lift;
      one.paint(one.set, corners, depth);
    }
    const sorted = [...items].sort((one, other) => one.depth - other.depth);
    if (sorted.some((one, i) => one !== items[i])) layer.append(...sorted.map(({ element }) => element));
    items = sorted;
    drawHandle(project);
    drawFrame(project);
    drawAxes(project);
    svg.dataset.view = `${azimuth} ${elevation}`;
  }

  // The ring that the reader drags stands where its two sliders say.
  function drawHandle(project) {
    if (!handle) return;
    const [x, y] = project(place(spec.drag.map(({ control, stops }) => stops[position(control)])));
    handle.setAttribute("cx", x.toFixed(3));
    handle.setAttribute("cy", y.toFixed(3));
  }

  function drawFrame(project) {
    const paths = { before: "", behind: "" };
    spec.frame.forEach((end, i) => {
      const start = spec.frame[i - 1];
      if (!start || !end) return;
      const [p, q] = [project(start), project(end)];
      paths[p[2] + q[2] < -1e-9 ? "behind" : "before"] +=
        `M${p[0].toFixed(1)} ${p[1].toFixed(1)}L${q[0].toFixed(1)} ${q[1].toFixed(1)}`;
    });
    for (const [name, path] of Object.entries(paths)) svg.querySelector(`.${name}`).setAttribute("d", path);
  }

  const texts = spec.axes.map((axis) => axis.texts.map((text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "text");
    element.textContent = text;
    svg.querySelector("[data-axes]").append(element);
    return element;
  }));

  // The texts of x and y stand at the lowest edge of the box, those of z at the leftmost, outside.
  function drawAxes(project) {
    spec.axes.forEach(({ edges }, axis) => {
      const drawn = edges.map(([p, q]) => [project(p), project(q)]);
      const rank = ([p, q]) => axis === 2 ? -p[0] - q[0] : p[1] + q[1];
      const best = Math.max(...drawn.map(rank));
      const [p, q] = drawn.find((edge) => rank(edge) > best - 1e-6);
      const outward = [(p[0] + q[0]) / 2 - middle, (p[1] + q[1]) / 2 - middle];
      const length = Math.hypot(...outward) || 1;
      texts[axis].forEach((text, i) => ["x", "y"].forEach((name, k) =>
        text.setAttribute(name, p[k] + [0.05, 0.5, 0.95][i] * (q[k] - p[k]) + [14, 26, 14][i] * outward[k] / length)));
    });
  }

  function turn(right, up) {
    azimuth = ((azimuth - right + 540) % 360) - 180;
    elevation = Math.min(Math.max(elevation + up, -90), 90);
    draw();
  }

  function follow() {
    let [last, before] = [null, null];
    svg.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button) return;
      [last, before] = [event, [azimuth, elevation]];
      svg.setPointerCapture(event.pointerId);
      svg.classList.add("dragging");
    });
    svg.addEventListener("pointermove", (event) => {
      if (!last || event.pointerId !== last.pointerId) return;
      const degrees = 180 / svg.getBoundingClientRect().width;
      turn(degrees * (event.clientX - last.clientX), degrees * (event.clientY - last.clientY));
      last = event;
    });
    const release = () => { last = null; svg.classList.remove("dragging"); };
    svg.addEventListener("pointerup", release);
    svg.addEventListener("pointercancel", () => { // the finger scrolls the page
      if (last) [azimuth, elevation] = before;
      release();
      draw();
    });
    svg.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, -5], ArrowDown: [0, 5] }[event.key];
      if (!turns) return;
      event.preventDefault();
      turn(...turns);
    });
    svg.addEventListener("dblclick", () => { [azimuth, elevation] = spec.view; draw(); });
  }

  // Moves the two sliders of the ring to the stops nearest to the pointer, or one on with an arrow key. A finger
  // must take the ring itself, so that it can scroll the page everywhere else.
  function grab() {
    let pointer = null;
    const go = (k, stop) => {
      const { control, stops } = spec.drag[k];
      inputs[control].value = Math.min(Math.max(stop, 0), stops.length - 1);
    };
    const reach = (event) => {
      const box = svg.getBoundingClientRect();
      const [right, down] = [event.clientX - box.left, event.clientY - box.top].map((pixels) =>
        (pixels / box.width) * 2 * middle - middle);
      [right, -down].forEach((drawn, k) => {
        const target = drawn / spec.unit / spec.scale[k] + spec.center[k];
        const gaps = spec.drag[k].stops.map((stop) => Math.abs(stop - target));
        go(k, gaps.indexOf(Math.min(...gaps)));
      });
      settle();
    };
    svg.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button) return;
      if (event.pointerType === "touch" && event.target !== handle) return;
      pointer = event.pointerId;
      svg.setPointerCapture(pointer);
      svg.classList.add("dragging");
      reach(event);
    });
    svg.addEventListener("pointermove", (event) => { if (event.pointerId === pointer) reach(event); });
    for (const end of ["pointerup", "pointercancel"])
      svg.addEventListener(end, () => { pointer = null; svg.classList.remove("dragging"); });
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 1], ArrowDown: [1, -1] }[event.key];
      if (!step) return;
      event.preventDefault();
      go(step[0], position(spec.drag[step[0]].control) + step[1]);
      settle();
    });
  }

  // Walks through the stops of the first control, at a calm pace where the reader wants little motion.
  function play(button) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    const last = spec.controls[0].shown.length - 1;
    let timer = null;
    const go = (stop) => {
      inputs[0].value = stop;
      inputs[0].dispatchEvent(new Event("input"));
    };
    const pause = () => {
      clearTimeout(timer);
      timer = null;
      button.setAttribute("aria-pressed", "false");
      readout?.setAttribute("aria-live", "polite");
    };
    const step = () => {
      if (position(0) >= last) return pause();
      go(position(0) + 1);
      timer = setTimeout(step, calm.matches ? 1000 : Math.min(Math.max(6000 / last, 60), 700));
    };
    button.addEventListener("click", () => {
      if (timer) return pause();
      button.setAttribute("aria-pressed", "true");
      readout?.setAttribute("aria-live", "off");
      if (position(0) === last) go(0);
      timer = setTimeout(step, 60);
    });
    inputs[0].addEventListener("input", (event) => { if (event.isTrusted && timer) pause(); });
    pause();
  }

  inputs.forEach((input) => input.addEventListener("input", settle));
  if (!flat) follow();
  if (handle) grab();
  const button = figure.querySelector("[data-play]");
  if (button) play(button);
  settle();
  figure.lossbookScene = { coordinates, readouts, view: () => [azimuth, elevation] };
})(document.getElementById("FIGURE"));
