// The page: its controls, whose state is in the address, the curves of two losses, and two toy models that
// are trained with them.

const page = document.getElementById("lossbook-explorer");
const spec = JSON.parse(page.querySelector("script[type='application/json']").textContent);
const find = (selector, within = page) => within.querySelector(selector);
const findAll = (selector, within = page) => [...within.querySelectorAll(selector)];
const SIDES = ["a", "b"];
const POINTS = 200;

// --- The state: every control's value, from the address where it is given and else its default

function accepted(control, text) {
  if (text === undefined) return control.default;
  if (control.choices) return text in control.choices ? text : control.default;
  if (control.optional && text === "none") return null;
  const number = text.trim() === "" ? NaN : Number(text);
  if (!Number.isFinite(number)) return control.default;
  const inside = Math.min(Math.max(number, control.low), control.high);
  return control.scale === "whole" ? Math.round(inside) : inside;
}

// All controls under the names they have in the address.
function controlsOf({ kind, a, b }) {
  const { losses, scene, toy } = spec.kinds[kind];
  const named = (side, loss) => Object.entries(losses[loss].controls).map(([name, c]) => [`${side}.${name}`, c]);
  return Object.fromEntries([...named("a", a), ...named("b", b), ...Object.entries({ ...scene, ...toy })]);
}

function settled(given) {
  const kind = given.kind in spec.kinds ? given.kind : Object.keys(spec.kinds)[0];
  const { losses, first } = spec.kinds[kind];
  const state = { kind };
  SIDES.forEach((side, i) => { state[side] = given[side] in losses ? given[side] : first[i]; });
  for (const [name, control] of Object.entries(controlsOf(state))) state[name] = accepted(control, given[name]);
  return state;
}

const written = (value) => (value === null ? "none" : String(value));
const asTexts = (state) => Object.fromEntries(Object.entries(state).map(([k, v]) => [k, written(v)]));

// The address says what differs from the defaults.
function address(state) {
  const { first } = spec.kinds[state.kind], controls = controlsOf(state);
  const plain = { kind: Object.keys(spec.kinds)[0], a: first[0], b: first[1] };
  const differs = ([name, value]) => value !== (name in controls ? controls[name].default : plain[name]);
  return Object.entries(state).filter(differs).map(([name, value]) => `${name}=${written(value)}`).join("&");
}

function fromAddress() {
  const entries = location.hash.slice(1).split("&").map((entry) => entry.split("="));
  return settled(Object.fromEntries(entries.map(([name, value = ""]) => [name, value])));
}

let state = fromAddress();

// Moving a slider changes the entry of the history; choosing from a menu makes one to come back from.
function remember(chosen) {
  const url = `#${address(state)}`;
  if (url === (location.hash || "#")) return;
  if (chosen) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}

// --- Controls

const signed = (number) => String(number).replace("-", "−");

const rounded = (x) => Number(x.toPrecision(3));
const shown = (control, value) =>
  value === null ? "none" : control.choices ? control.choices[value] : signed(rounded(value));

// The largest of 1, 2, 5, 10, 20 ... that is at most x.
function roundStep(x) {
  const size = 10 ** Math.floor(Math.log10(x));
  return Number((size * [5, 2, 1].find((m) => m * size <= x * (1 + 1e-9))).toPrecision(1));
}

// Where a slider goes: over the values themselves, or over places for stops and logarithmic ranges.
const PLACES = 200;
function track({ low, high, scale, optional, choices }) {
  if (scale === "stops") return { min: 0, max: Object.keys(choices).length - 1, step: 1 };
  if (scale === "log") return { min: 0, max: PLACES, step: 1 };
  const step = scale === "whole" ? 1 : roundStep((high - low) / 100);
  return { min: optional ? low - step : low, max: high, step }; // the place before the first says none
}

function place(control, value) {
  const { low, high, scale, choices } = control;
  if (scale === "stops") return Object.keys(choices).indexOf(value);
  if (scale === "log") return PLACES * Math.log(value / low) / Math.log(high / low);
  return value ?? track(control).min;
}

function valueAt(control, spot) {
  const { low, high, scale, choices } = control;
  if (scale === "stops") return Object.keys(choices)[spot];
  if (scale === "log") return Math.min(Math.max(rounded(low * (high / low) ** (spot / PLACES)), low), high);
  return spot < low ? null : rounded(spot);
}

const option = ([value, label]) => `<option value="${value}">${label}</option>`;

function controlElement(name, control) {
  const label = `<span>${control.label}</span>`;
  if (control.choices && control.scale !== "stops") {
    const options = Object.entries(control.choices).map(option).join("");
    return `<label>${label}<select data-control="${name}">${options}</select></label>`;
  }
  const { min, max, step } = track(control);
  return `<label>${label}<input type="range" data-control="${name}" min="${min}" max="${max}" step="${step}">` +
    `<output></output></label>`;
}

const elements = (controls) => Object.entries(controls).map(([name, c]) => controlElement(name, c)).join("");
const title = (side) => spec.kinds[state.kind].losses[state[side]].title;

// What a loss is called in a sentence: with its hyperparameters where both sides show the same loss.
function named(side) {
  if (state.a !== state.b) return title(side);
  const { controls } = spec.kinds[state.kind].losses[state[side]];
  const settings = Object.entries(controls).map(([name, c]) => `${c.label} ${shown(c, state[`${side}.${name}`])}`);
  return `${side.toUpperCase()} (${[title(side), ...settings].join(", ")})`;
}

const built = {};
// Runs `make` where what it makes depends on has changed.
function rebuild(part, key, make) {
  if (built[part] === key) return;
  built[part] = key;
  make();
}

function showControls() {
  const kind = spec.kinds[state.kind];
  rebuild("kind", state.kind, () => {
    const menu = Object.entries(kind.losses).map(([name, loss]) => option([name, loss.title])).join("");
    SIDES.forEach((side) => { find(`select[data-control="${side}"]`).innerHTML = menu; });
    find("[data-scene]").innerHTML = elements(kind.scene);
    find("[data-toy]").innerHTML = elements(kind.toy);
    findAll("[data-only]").forEach((part) => {
      part.hidden = !part.dataset.only.split(" ").includes(state.kind);
    });
  });
  for (const side of SIDES) {
    rebuild(side, `${state.kind} ${state[side]}`, () => {
      const own = Object.entries(kind.losses[state[side]].controls).map(([name, c]) => [`${side}.${name}`, c]);
      find(`[data-settings="${side}"]`).innerHTML = elements(Object.fromEntries(own));
      showLink(side);
    });
  }
  const controls = controlsOf(state);
  for (const element of findAll("[data-control]")) {
    const name = element.dataset.control, control = controls[name];
    if (!control || element.tagName === "SELECT") { element.value = state[name]; continue; }
    element.value = place(control, state[name]);
    element.nextElementSibling.textContent = shown(control, state[name]);
    element.setAttribute("aria-valuetext", shown(control, state[name]));
  }
}

// The loss in the reference of the package, linked as in the list further down the page.
function showLink(side) {
  const name = spec.kinds[state.kind].losses[state[side]].link;
  const entry = document.querySelector(`a[href$="#${name}"]`);
  find(`[data-link="${side}"]`).innerHTML =
    entry ? `<a href="${entry.getAttribute("href")}">${name.split(".").pop()}</a>` : "";
}

function moved(event) {
  const element = event.target.closest("[data-control]");
  if (!element) return;
  const name = element.dataset.control, given = asTexts(state);
  const chosen = element.tagName === "SELECT" || element.type === "radio";
  given[name] = chosen ? element.value : written(valueAt(controlsOf(state)[name], Number(element.value)));
  // Another loss starts from its own defaults.
  if (SIDES.includes(name))
    for (const key of Object.keys(given)) if (key.startsWith(`${name}.`)) delete given[key];
  state = settled(name === "kind" ? { kind: element.value, seed: given.seed } : given);
  show();
  if (chosen || event.type === "change") remember(chosen);
}

// --- The two losses as functions

function settingsOf(side) {
  const { controls } = spec.kinds[state.kind].losses[state[side]];
  const value = (name) => {
    const setting = state[`${side}.${name}`];
    return setting === "true" ? true : setting === "false" ? false : setting;
  };
  return Object.fromEntries(Object.keys(controls).map((name) => [name, value(name)]));
}

function lossOf(side) {
  const name = state[side], settings = settingsOf(side);
  if (state.kind === "margins") return (m) => margins[name](m, settings);
  if (state.kind === "logits") return (z, y, counts) => logits[name](z, y, { ...settings, class_counts: counts });
  return name in pairs ? (u, v, i) => pairs[name](u, v, i, settings) : (u, v) => batches[name](u, v, settings);
}

const midpoints = (low, high) => Array.from({ length: POINTS }, (_, i) => low + (high - low) * (i + 0.5) / POINTS);
const variable = (x) => new Jet(Float64Array.from(x), new Float64Array(x.length).fill(1), new Float64Array(x.length));
const along = (t, value) => add(multiply(t, 0), value); // a jet even where nothing changes

// --- What is drawn: for each panel its points and the values of both losses

const rivals = () =>
  Array.from({ length: state.classes - 1 }, (_, k) => -state.spread * k / Math.max(state.classes - 2, 1));
const total = (list) => Math.log(list.reduce((sum, x) => sum + Math.exp(x), 0));

// A loss of one example as a function of the margin alone.
function ofMargin(side) {
  const loss = lossOf(side);
  if (state.kind === "margins") return (t) => along(t, loss(t));
  const counts = classCounts(state.classes, state.imbalance);
  return (t) => along(t, loss([...rivals(), t], state.classes - 1, counts));
}

// How hard an example pulls on its label's score where its probability is p.
function pull(side, p) {
  const shift = state.kind === "margins" ? 0 : total(rivals());
  const margin = p.map((x) => Math.log(x / (1 - x)) + shift);
  return ofMargin(side)(variable(margin)).slope.map((slope) => -slope);
}

// An anchor, its positive, and negatives that coincide with theirs, each in a direction of its own.
function batchOf(positive, negatives) {
  const direction = (s, k) => { const x = [s, 0, 0]; x[k] = power(subtract(1, square(s)), 0.5); return x; };
  const rest = negatives.map((s) => direction(s, 2));
  return [[[1, 0, 0], ...rest], [direction(positive, 1), ...rest]];
}

function negativesOf() {
  const { negatives: n, hardest } = state;
  return Array.from({ length: n }, (_, j) => hardest - (hardest + 0.95) * j / Math.max(n - 1, 1));
}

function ofSimilarity(side) {
  const loss = lossOf(side), fixed = negativesOf();
  return (t) => {
    const [u, v] = state.moves === "positive" ? batchOf(t, fixed) : batchOf(state.positive, [t, ...fixed.slice(1)]);
    return along(t, loss(u, v, 0));
  };
}

// The shares of the negatives in the force on all of them.
function forces(side) {
  const place = negativesOf(), n = place.length;
  const free = place.map((s, j) => new Jet(Float64Array.of(s), new Float64Array(n).fill(1, j, j + 1)));
  const { slope } = add(multiply(free[0], 0), lossOf(side)(...batchOf(state.positive, free), 0));
  const size = slope.reduce((sum, force) => sum + Math.abs(force), 0);
  return slope.map((force) => (size > 0 ? force / size : 0));
}

function panels() {
  const contrastive = state.kind === "pairs", wide = state.kind === "margins" ? 4 : 6;
  const x = contrastive ? midpoints(-1, 1) : midpoints(-wide, wide), t = variable(x);
  const both = SIDES.map((side) => (contrastive ? ofSimilarity(side) : ofMargin(side))(t));
  const [xLabel, what] = contrastive
    ? [`similarity of the ${state.moves === "positive" ? "positive" : "moving negative"} to the anchor`, "similarity"]
    : [state.kind === "margins" ? "margin" : "margin: the label’s logit over its best rival’s", "margin"];
  const list = [
    { name: "value", title: "Value", xLabel, x, lines: both.map((jet) => jet.value) },
    { name: "gradient", title: `Gradient: slope in the ${what}`, xLabel, x, lines: both.map((jet) => jet.slope) },
    { name: "curvature", title: "Curvature: second derivative", xLabel, x, lines: both.map((jet) => jet.bend) },
  ];
  if (contrastive) {
    list.push({
      name: "weight", title: "Share of each negative in the force", x: negativesOf(), lines: SIDES.map(forces),
      xLabel: "similarity of the negative to the anchor", dots: true,
    });
  } else {
    const p = midpoints(0, 1);
    list.push({
      name: "weight", title: "Weight: pull on the label’s score", x: p, lines: SIDES.map((side) => pull(side, p)),
      xLabel: state.kind === "margins" ? "1 / (1 + exp(−margin))" : "probability of the label, p",
    });
  }
  return list;
}

// --- Panels

const BOX = { width: 360, height: 236, left: 44, right: 8, top: 26, bottom: 38 };
const COLORS = spec.palette, DASHES = ["", "7 4"];
const stroke = (i) => `stroke="${COLORS[i]}" stroke-width="2.4"${DASHES[i] && ` stroke-dasharray="${DASHES[i]}"`}`;

function ticks(low, high) {
  const rough = (high - low) / 6.5, size = 10 ** Math.floor(Math.log10(rough));
  const unit = size * ([1, 2, 5].find((m) => m * size >= rough) ?? 10);
  const from = Math.ceil(low / unit - 1e-9), to = Math.floor(high / unit + 1e-9);
  return Array.from({ length: to - from + 1 }, (_, i) => Number(((from + i) * unit).toPrecision(12)));
}

// Limits that hold both curves, unless one dwarfs the other: then it may leave the panel.
function limits(lines) {
  const spans = lines.map((line) => {
    const finite = [...line].filter(Number.isFinite);
    return [Math.min(...finite), Math.max(...finite)];
  });
  let [low, high] = [Math.min(...spans.map((s) => s[0])), Math.max(...spans.map((s) => s[1]))];
  const [small] = [...spans].sort((s, t) => s[1] - s[0] - t[1] + t[0]), size = small[1] - small[0];
  if (size > 0.05) [low, high] = [Math.max(low, small[0] - 7 * size), Math.min(high, small[1] + 7 * size)];
  if (!(high - low > 1e-9)) [low, high] = [low - 0.5 || -0.5, high + 0.5 || 0.5];
  return [low - 0.05 * (high - low), high + 0.05 * (high - low)];
}

function draw(panel, index) {
  const { left, right, top, bottom, width, height } = BOX;
  const [x0, x1] = [Math.min(...panel.x), Math.max(...panel.x)], [y0, y1] = limits(panel.lines);
  const pad = panel.dots ? 0.04 : 0; // so that the dots at the ends are whole
  const across = (width - left - right) / (x1 - x0 + 2 * pad), up = -(height - top - bottom) / (y1 - y0);
  const originX = left - across * (x0 - pad), originY = height - bottom - up * y0;
  const px = (x) => originX + across * x, py = (y) => originY + up * y;
  const grid = ticks(y0, y1).map((y) =>
    `<line class="grid" x1="${left}" x2="${width - right}" y1="${py(y)}" y2="${py(y)}"/>` +
    `<text x="${left - 5}" y="${py(y) + 4}" text-anchor="end">${signed(y)}</text>`).join("");
  const marks = ticks(x0 - pad, x1 + pad).map((x) =>
    `<line class="tick" x1="${px(x)}" x2="${px(x)}" y1="${height - bottom}" y2="${height - bottom + 4}"/>` +
    `<text x="${px(x)}" y="${height - bottom + 16}" text-anchor="middle">${signed(x)}</text>`).join("");
  const far = (y) => Math.min(Math.max(y, -1e7), 1e7); // what a renderer still draws
  const curve = (line, i) => {
    const points = panel.x.flatMap((x, k) => (Number.isFinite(line[k]) ? [`${px(x)},${far(py(line[k]))}`] : []));
    const dots = panel.dots ? panel.x.map((x, k) =>
      `<circle cx="${px(x)}" cy="${py(line[k])}" r="3" fill="${COLORS[i]}"/>`).join("") : "";
    return `<polyline data-curve="${i}" fill="none" ${stroke(i)} points="${points.join(" ")}"/>${dots}`;
  };
  const svg = findAll("svg[data-panel]")[index];
  svg.dataset.axes = `${originX} ${originY} ${across} ${up}`;
  svg.setAttribute("aria-label",
    `${panel.title}, against ${panel.xLabel}, for A, ${title("a")}, and B, ${title("b")}`);
  svg.innerHTML =
    `<clipPath id="lossbook-explorer-${index}"><rect x="${left}" y="${top - 2}" ` +
    `width="${width - left - right}" height="${height - top - bottom + 4}"/></clipPath>` +
    `<text class="title" x="${left}" y="16">${panel.title}</text>${grid}${marks}` +
    `<text x="${(left + width - right) / 2}" y="${height - 6}" text-anchor="middle">${panel.xLabel}</text>` +
    `<g clip-path="url(#lossbook-explorer-${index})">${panel.lines.map(curve).join("")}` +
    `<line data-marker class="marker" y1="${top}" y2="${height - bottom}"/></g>`;
}

// Pointing at a panel reads both curves off.
function point(event) {
  const svg = event.currentTarget, index = findAll("svg[data-panel]").indexOf(svg), { x, lines } = drawn[index];
  const [origin, , across] = svg.dataset.axes.split(" ").map(Number), box = svg.getBoundingClientRect();
  const target = ((event.clientX - box.left) / box.width * BOX.width - origin) / across;
  const nearest = x.reduce((best, value, i) => (Math.abs(value - target) < Math.abs(x[best] - target) ? i : best), 0);
  const marker = find("[data-marker]", svg);
  for (const end of ["x1", "x2"]) marker.setAttribute(end, origin + across * x[nearest]);
  marker.style.visibility = "visible";
  const read = SIDES.map((side, i) => `${side.toUpperCase()} ${signed(lines[i][nearest].toPrecision(4))}`);
  find("[data-readout]").textContent = `at ${signed(rounded(x[nearest]))}: ${read.join(", ")}`;
}

function leave(event) {
  const marker = find("[data-marker]", event.currentTarget);
  if (marker) marker.style.visibility = "hidden";
  find("[data-readout]").textContent = "";
}

// --- What is seen, in numbers

const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";
function digits(x) {
  if (x === 0 || Math.abs(x) >= 5e-4 && Math.abs(x) < 1e4) return signed(Number(x.toPrecision(2)));
  const [digit, exponent] = x.toExponential(1).split("e");
  const raised = exponent.replace("+", "").replace("-", "⁻").replace(/\d/g, (d) => SUPERSCRIPT[d]);
  return signed(`${digit}·10${raised}`);
}
const percent = (x) => `${(100 * x).toFixed(1)}\u00a0%`;

function weights(side) {
  const [hard, easy] = pull(side, [0.1, 0.9]);
  const versus = Math.abs(easy) > 1e-12 ? `${digits(hard / easy)} times an easy one`.replace(/^1 times/, "as much as")
    : Math.abs(hard) > 1e-12 ? "where an easy one counts for nothing" : "and an easy one counts for nothing either";
  return { hard, easy, versus };
}

function seen() {
  if (state.kind === "pairs") {
    const shares = SIDES.map(forces), s = negativesOf()[0];
    const share = shares.map((f) => percent(f[0]));
    const none = shares.map((f) => f.every((x) => x === 0));
    const says = SIDES.map((side, i) => `${named(side)} ${none[i] ? "nothing at all" : share[i]}`);
    return `Of the force on the negatives, the hardest, at similarity ${signed(rounded(s))}, receives ` +
      `under ${says.join(", ")}; an even share would be ${percent(1 / state.negatives)}.`;
  }
  const [a, b] = SIDES.map(weights);
  const p = state.kind === "margins" ? "Where 1 / (1 + exp(−margin)) is 0.9" : "At p = 0.9";
  return `${p}, ${named("a")} weighs an example ${digits(a.easy)}, ${named("b")} ${digits(b.easy)}. ` +
    `A hard one, at 0.1: under A ${digits(a.hard)}, ${a.versus}; under B ${digits(b.hard)}, ${b.versus}.`;
}

// --- Training

let run = null;

function problem(side) {
  const { rate, seed } = state, loss = lossOf(side);
  if (state.kind === "pairs") {
    return encoder({ loss, ofBatch: state[side] in batches, rate, seed, twins: Number(state.twins) });
  }
  const binary = state.kind === "margins", { feature, noise, imbalance } = state;
  return classifier({
    loss, binary, classes: binary ? 2 : Number(state.toy_classes), feature, noise, imbalance, rate, seed,
  });
}

// Starts training anew, unless nothing that it depends on has changed.
function train() {
  const { scene } = spec.kinds[state.kind];
  const key = JSON.stringify(Object.entries(state).filter(([name]) => !(name in scene)));
  if (run?.key === key) return;
  run = { key, done: 0, steps: state.steps, models: SIDES.map(problem), seen: 0, busy: 0 };
  requestAnimationFrame(() => proceed(run));
}

// Steps for a few milliseconds, then lets the page breathe.
function proceed(current) {
  if (current !== run) return;
  const began = performance.now();
  while (run.done < run.steps && performance.now() < began + 12) {
    run.models.forEach((model) => model.step());
    run.done++;
  }
  if (run.done === run.steps || began > run.seen + 90) {
    showToy();
    run.seen = began;
  }
  run.busy += performance.now() - began;
  if (run.done < run.steps) requestAnimationFrame(() => proceed(current));
}

const readingOf = (side) => (state[side] === "spherical_softmax_loss" ? (z) => z * z : (z) => z);
const finite = (model) => model.weights.every((w) => w.every(Number.isFinite));
const share = (items, test) => (items.length ? items.filter(test).length / items.length : NaN);

function measures(side, i) {
  const model = run.models[i];
  if (!finite(model)) return null;
  if (state.kind === "pairs") {
    const angles = model.rows.map((row) => scoresOf(model.weights, row)[0]);
    const things = model.examples.map((e) => e.thing);
    const cosines = (keep) => angles.flatMap((x, j) => angles.flatMap((y, k) =>
      (keep(j, k) ? [Math.cos(x - y)] : [])));
    const example = (j) => j % EXAMPLES, average = (all) => all.reduce((sum, x) => sum + x, 0) / all.length;
    return {
      views: average(cosines((j, k) => j < k && example(j) === example(k))),
      twins: average(cosines((j, k) => example(j) < example(k) && things[example(j)] === things[example(k)])),
      others: average(cosines((j, k) => things[example(j)] < things[example(k)])),
    };
  }
  const says = (place) => predict(model.weights, features[state.feature](place), readingOf(side));
  const rarest = (state.kind === "margins" ? 2 : Number(state.toy_classes)) - 1;
  return {
    clean: share(model.fresh, ({ place, truth }) => says(place) === truth),
    rare: share(model.fresh.filter((p) => p.truth === rarest), ({ place, truth }) => says(place) === truth),
    learned: share(model.train.filter((p) => p.truth !== p.label), ({ place, label }) => says(place) === label),
  };
}

const COLUMNS = {
  clean: ["clean accuracy", percent],
  rare: ["rarest class found", percent],
  learned: ["flipped labels learned", percent],
  views: ["views of one example", (x) => signed(x.toFixed(3))],
  twins: ["examples of one thing", (x) => signed(x.toFixed(3))],
  others: ["different things", (x) => signed(x.toFixed(3))],
};

function showToy() {
  const results = SIDES.map(measures);
  const columns = state.kind === "pairs" ? ["views", "twins", "others"] : ["clean", "rare", "learned"];
  const cell = (result, name) =>
    (result === null ? "diverged" : Number.isNaN(result[name]) ? "–" : COLUMNS[name][1](result[name]));
  const heads = columns.map((name) => `<th scope="col">${COLUMNS[name][0]}</th>`).join("");
  const rows = SIDES.map((side, i) => `<tr><th scope="row">${sample(i)} ${side.toUpperCase()}</th>` +
    `${columns.map((name) => `<td>${cell(results[i], name)}</td>`).join("")}</tr>`);
  find("[data-results]").innerHTML =
    `<tr><th scope="col">${state.kind === "pairs" ? "mean cosine of" : ""}</th>${heads}</tr>${rows.join("")}`;
  find("[data-progress]").textContent = `step ${run.done} of ${run.steps}`;
  if (run.done === run.steps) find("[data-toy-seen]").textContent = toySeen(results);
  if (state.kind === "pairs") drawCircles(); else drawPlane();
}

function toySeen(results) {
  if (results.includes(null))
    return "A model whose weights are no longer numbers has diverged: make the step size smaller.";
  const [a, b] = results, names = SIDES.map(named), { models: [{ train, fresh }] } = run;
  if (state.kind === "pairs") {
    const text = `After ${run.steps} steps the two views of an example have a mean cosine of ` +
      `${signed(a.views.toFixed(3))} under ${names[0]} and of ${signed(b.views.toFixed(3))} under ${names[1]}.`;
    return Number.isNaN(a.twins) ? text : `${text} Examples of one thing, which both losses take for negatives, ` +
      `end at ${signed(a.twins.toFixed(2))} and ${signed(b.twins.toFixed(2))}.`;
  }
  const flipped = train.filter((p) => p.truth !== p.label).length;
  const text = `After ${run.steps} steps on ${train.length} points, ${names[0]} gets ${percent(a.clean)} of ` +
    `${fresh.length} fresh points right, ${names[1]} ${percent(b.clean)}.`;
  return !flipped ? text : `${text} Of the ${flipped} flipped labels, ` +
    `A reproduces ${percent(a.learned)} and B ${percent(b.learned)}.`;
}

// --- Pictures of the toys

const sample = (i) => `<svg class="sample" viewBox="0 0 30 10" aria-hidden="true">` +
  `<line x1="0" x2="30" y1="5" y2="5" ${stroke(i)}/></svg>`;
const PLANE = 3.1, CELLS = 72;
const lattice = Array.from({ length: CELLS + 1 }, (_, i) => -PLANE + 2 * PLANE * i / CELLS);
const pixel = ([x, y]) => [180 + 170 * x / PLANE, 180 - 170 * y / PLANE];
const SHAPES = [
  (x, y) => `<circle cx="${x}" cy="${y}" r="4"`,
  (x, y) => `<path d="M${x - 4.6},${y + 3.6}h9.2l-4.6,-8.2z"`,
  (x, y) => `<path d="M${x - 3.7},${y - 3.7}h7.4v7.4h-7.4z"`,
];

const tables = {};
const latticeRows = (feature) => (tables[feature] ??=
  lattice.map((y) => lattice.map((x) => features[feature]([x, y]))));

// The lines where two classes' scores are equal and no third is higher. Each cell of a lattice has a piece of
// them, between two of its edges; pieces that share an edge are joined, for dashes to run on.
function boundary(model, reading) {
  const scores = latticeRows(state.feature).map((line) => line.map((row) => {
    const z = scoresOf(model.weights, row);
    return z.length === 1 ? [-z[0], z[0]] : z.map(reading);
  }));
  const classes = scores[0][0].length, lines = [];
  for (let p = 0; p < classes; p++) for (let q = 0; q < p; q++) {
    const pieces = new Map(); // from an edge to the edges that a piece joins it to
    const places = new Map();
    const cross = (r, c, r2, c2) => {
      const s = scores[r][c], t = scores[r2][c2], from = s[p] - s[q], to = t[p] - t[q];
      if (from > 0 === to > 0) return [];
      const part = from / (from - to), between = (u, w) => u + part * (w - u);
      if (s.some((_, k) => k !== p && k !== q && between(s[k], t[k]) > between(s[p], t[p]))) return [];
      const edge = `${r} ${c} ${r2} ${c2}`;
      places.set(edge, pixel([between(lattice[c], lattice[c2]), between(lattice[r], lattice[r2])]));
      return [edge];
    };
    for (let i = 0; i < CELLS; i++) for (let j = 0; j < CELLS; j++) {
      const edges = [
        ...cross(i, j, i, j + 1), ...cross(i, j + 1, i + 1, j + 1),
        ...cross(i + 1, j, i + 1, j + 1), ...cross(i, j, i + 1, j),
      ];
      for (let k = 0; k + 1 < edges.length; k += 2)
        for (const [x, y] of [[edges[k], edges[k + 1]], [edges[k + 1], edges[k]]])
          pieces.set(x, [...(pieces.get(x) ?? []), y]);
    }
    while (pieces.size) lines.push(takeLine(pieces).map((edge) => places.get(edge)));
  }
  return lines.map((line) => `M${line.map((xy) => xy.map((x) => x.toFixed(1))).join("L")}`).join("");
}

// Takes a whole line out of the pieces, from one of its ends if it has any.
function takeLine(pieces) {
  let edge = [...pieces.keys()].find((key) => pieces.get(key).length === 1) ?? pieces.keys().next().value;
  const line = [edge];
  for (;;) {
    const next = pieces.get(edge)?.pop();
    if (!pieces.get(edge)?.length) pieces.delete(edge);
    if (next === undefined) return line;
    const back = pieces.get(next).filter((other) => other !== edge);
    if (back.length) pieces.set(next, back);
    else pieces.delete(next);
    line.push(next);
    edge = next;
  }
}

function drawPlane() {
  const { models } = run, svg = find("[data-plane]");
  const marks = models[0].train.map(({ place, truth, label }) => {
    const color = spec.classes[label], flipped = truth !== label;
    const shape = SHAPES[label](...pixel(place).map((x) => Number(x.toFixed(1))));
    return `${shape} stroke="${color}" stroke-width="1.6" ${flipped ? 'fill="none" class="flipped"' : `fill="${color}"`}/>`;
  });
  const lines = models.map((model, i) => (!finite(model) ? "" :
    `<path data-boundary="${i}" fill="none" ${stroke(i)} d="${boundary(model, readingOf(SIDES[i]))}"/>`));
  svg.innerHTML = `<rect class="frame" x="5" y="5" width="350" height="350"/>${marks.join("")}${lines.join("")}`;
  const classes = new Set(models[0].train.map((p) => p.label)).size;
  svg.setAttribute("aria-label", `${models[0].train.length} training points of ${classes} classes, and where the models of A (solid line) and B (dashed line) change their decision`);
}

function drawCircles() {
  run.models.forEach((model, i) => {
    const svg = findAll("[data-circle]")[i];
    const angles = finite(model) ? model.rows.map((row) => scoresOf(model.weights, row)[0]) : [];
    const on = (angle, radius) =>
      [110 + radius * Math.cos(angle), 110 - radius * Math.sin(angle)].map((x) => x.toFixed(1));
    const marks = angles.slice(0, EXAMPLES).map((angle, e) => {
      const [x1, y1] = on(angle, 78), [x2, y2] = on(angles[e + EXAMPLES], 78), [x, y] = on(angle, 93);
      return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${COLORS[i]}" stroke-width="1.5"/>` +
        `<circle cx="${x1}" cy="${y1}" r="4" fill="${COLORS[i]}"/>` +
        `<circle cx="${x2}" cy="${y2}" r="4" fill="none" stroke="${COLORS[i]}" stroke-width="1.6"/>` +
        `<text x="${x}" y="${y}" text-anchor="middle" dominant-baseline="central">` +
        `${model.examples[e].thing + 1}</text>`;
    });
    const side = SIDES[i].toUpperCase();
    svg.innerHTML = `<circle class="frame" cx="110" cy="110" r="78"/>` +
      `<text class="title" x="110" y="114" text-anchor="middle">${side}</text>${marks.join("")}`;
    svg.setAttribute("aria-label",
      `The ${2 * EXAMPLES} views on the circle after training with ${side}, ${title(SIDES[i])}`);
  });
}

// --- All together

let drawn = [];

function show() {
  showControls();
  drawn = panels();
  drawn.forEach(draw);
  find("[data-seen]").textContent = seen();
  train();
}

page.addEventListener("input", moved);
page.addEventListener("change", moved);
document.addEventListener("DOMContentLoaded", () => SIDES.forEach(showLink));
window.addEventListener("hashchange", () => { state = fromAddress(); show(); });
findAll("svg[data-panel]").forEach((svg) => {
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerleave", leave);
});
page.hidden = false;
show();

// For whoever wants the numbers, and for the tests.
window.lossbookExplorer = {
  spec,
  state: () => ({ ...state }),
  curves: () => drawn.map(({ name, x, lines }) => ({ name, x: [...x], lines: lines.map((line) => [...line]) })),
  training: () => ({
    done: run.done === run.steps,
    milliseconds: run.busy,
    models: run.models.map(({ step, ...rest }) => rest),
  }),
};
