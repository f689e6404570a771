// Toy problems small enough to be trained while one looks: full-batch gradient descent, every step the same
// whichever loss is minimized. All that is random comes from the seed, and is drawn whether it is used or
// not, so that a control changes what it controls and nothing else.

function randomStream(seed) {
  let state = Math.imul(seed + 1, 0x9e3779b9);
  const uniform = () => { // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}

const sumOver = (n, f) => Array.from({ length: n }, (_, k) => f(k)).reduce((sum, x) => sum + x, 0);

// --- Points in the plane: a cloud for each class, the last the rarest, some labels flipped

const MOST = 60, FRESH = 300;

function cloud(classes, k, { normal }) {
  const angle = Math.PI * (2 * k / classes + 1 / 2), radius = 1.15;
  return [radius * Math.cos(angle) + 0.75 * normal(), radius * Math.sin(angle) + 0.75 * normal()];
}

const classCounts = (classes, imbalance, most = 1) =>
  Array.from({ length: classes }, (_, k) => most * imbalance ** (-k / Math.max(classes - 1, 1)));

function makePoints({ classes, imbalance, noise, seed }) {
  const stream = randomStream(seed), train = [], fresh = [];
  classCounts(classes, imbalance, MOST).forEach((count, truth) => {
    for (let j = 0; j < MOST; j++) {
      const place = cloud(classes, truth, stream), flips = stream.uniform() < noise;
      const wrong = (truth + 1 + Math.floor(stream.uniform() * (classes - 1))) % classes;
      if (j < Math.round(count)) train.push({ place, truth, label: flips ? wrong : truth });
    }
  });
  for (let truth = 0; truth < classes; truth++)
    for (let j = 0; j < FRESH; j++) fresh.push({ place: cloud(classes, truth, stream), truth });
  return { train, fresh };
}

const BUMPS = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5];
const features = {
  straight: ([x, y]) => [1, x, y],
  curved: ([x, y]) => [1, x, y, x * x, x * y, y * y],
  bumps: ([x, y]) =>
    [1, ...BUMPS.flatMap((a) => BUMPS.map((b) => Math.exp(-((x - a) ** 2) - (y - b) ** 2)))],
};

const scoresOf = (weights, row) =>
  weights.map((w) => { let sum = 0; for (let j = 0; j < w.length; j++) sum += w[j] * row[j]; return sum; });

// A classifier of points: loss(z, y, counts) of jets, or loss(m) of one score's margin.
function classifier({ loss, binary, classes, feature, rate, seed, ...rest }) {
  const { train, fresh } = makePoints({ classes, seed, ...rest });
  const rows = train.map(({ place }) => features[feature](place));
  const stream = randomStream(seed + 1000), outputs = binary ? 1 : classes;
  const weights = Array.from({ length: outputs }, () => rows[0].map(() => 0.1 * stream.normal()));
  const start = weights.map((w) => [...w]);
  const members = Array.from({ length: classes }, (_, y) =>
    train.flatMap(({ label }, i) => (label === y ? [i] : []))).filter((list) => list.length);
  const counts = Array.from({ length: classes }, (_, y) => Math.max(1, train.filter((p) => p.label === y).length));

  function step() {
    const gradient = weights.map((w) => new Float64Array(w.length));
    for (const list of members) {
      const n = list.length, y = train[list[0]].label;
      const scores = list.map((i) => scoresOf(weights, rows[i]));
      const z = weights.map((_, k) => {
        const slope = new Float64Array(n * outputs).fill(1, n * k, n * (k + 1));
        return new Jet(Float64Array.from(scores, (row) => row[k]), slope);
      });
      const losses = binary ? loss(y ? z[0] : negative(z[0])) : loss(z, y, counts);
      gradient.forEach((g, k) => list.forEach((i, place) => {
        const pull = losses.slope[k * n + place] / train.length;
        for (let j = 0; j < g.length; j++) g[j] += pull * rows[i][j];
      }));
    }
    weights.forEach((w, k) => { for (let j = 0; j < w.length; j++) w[j] -= rate * gradient[k][j]; });
  }
  return { step, weights, start, train, fresh, rows, counts };
}

// What a classifier says: the class of the largest score, as the loss reads scores.
function predict(weights, row, reading = (z) => z) {
  const scores = scoresOf(weights, row).map(reading);
  if (scores.length === 1) return Number(scores[0] > 0);
  return scores.indexOf(Math.max(...scores));
}

// --- Points on the circle: what is seen is a number between 0 and 1, and a network of bumps makes it an angle

const EXAMPLES = 12, WAVES = 14;
const waves = (x) =>
  Array.from({ length: WAVES }, (_, b) => Math.exp(-((WAVES * x - b - 0.5) ** 2) / 2));

// Of every thing there are several examples, which the loss takes for different things: false negatives.
function makeViews({ twins, seed }) {
  const stream = randomStream(seed), things = EXAMPLES / twins;
  return Array.from({ length: EXAMPLES }, (_, i) => {
    const thing = Math.floor(i / twins), spread = 0.6 * (stream.uniform() - 0.5), shift = 0.012 * stream.normal();
    const center = (thing + 0.5 + spread) / things;
    return { thing, views: [center + shift, center - shift] };
  });
}

const onCircle = (angle) => [cos(angle), sin(angle)];

// An encoder of views. A loss(u, v, i) of unit vectors is the loss of one anchor: as no example is special,
// the batch is shown to it once for every anchor, which comes first. A loss(u, v) of the batch sees it once.
function encoder({ loss, ofBatch, rate, seed, twins }) {
  const examples = makeViews({ twins, seed }), n = ofBatch ? 1 : EXAMPLES, m = 2 * EXAMPLES;
  const rows = [0, 1].flatMap((view) => examples.map(({ views }) => waves(views[view])));
  const stream = randomStream(seed + 1000), start = Array.from({ length: WAVES }, () => stream.normal());
  const weights = [[...start]];

  function step() {
    const angles = rows.map((row) => scoresOf(weights, row)[0]);
    const points = rows.map((_, i) => {
      const angle = new Jet(new Float64Array(n), new Float64Array(n * m));
      for (let anchor = 0; anchor < n; anchor++) {
        const who = (i + anchor) % EXAMPLES + (i < EXAMPLES ? 0 : EXAMPLES);
        angle.value[anchor] = angles[who];
        angle.slope[who * n + anchor] = 1;
      }
      return [cos(angle), sin(angle)];
    });
    const { slope } = loss(points.slice(0, EXAMPLES), points.slice(EXAMPLES), 0);
    rows.forEach((row, i) => {
      const force = sumOver(n, (anchor) => slope[i * n + anchor]) / n;
      for (let j = 0; j < WAVES; j++) weights[0][j] -= rate * force * row[j];
    });
  }
  return { step, weights, start: [start], examples, rows };
}
