// The losses, each once and written from its formula, on jets: gradient and curvature follow by themselves.
// Settings bear the names of the package's arguments.

const others = (list, y) => list.filter((_, k) => k !== y);
const logProbability = (z, y) => subtract(z[y], logSumExp(z)); // log p_y
const logComplement = (z, y) => subtract(logSumExp(others(z, y)), logSumExp(z)); // log(1 - p_y)
const surprise = (z, y) => negative(logProbability(z, y));

// (1 - p)^gamma for log(1 - p).
const focus = (logMiss, gamma) => exp(multiply(logMiss, gamma));

// --- Functions of a margin m

const margins = {
  zero_one: (m) => subtract(1, multiply(add(above(m, 0), subtract(1, above(0, m))), 0.5)),
  perceptron: (m) => positivePart(negative(m)),
  hinge: (m) => positivePart(subtract(1, m)),
  squared_hinge: (m) => square(positivePart(subtract(1, m))),
  squared: (m) => square(subtract(1, m)),
  logistic: (m) => softplus(negative(m)),
  exponential: (m) => exp(negative(m)),
  ramp: (m, { s = -1 }) => negative(larger(negative(positivePart(subtract(1, m))), s - 1)),
};
const phiOf = (settings) => (m) => margins[settings.phi](m, {});

// --- Losses of logits z, an array of one jet for each class, and a label y

// The threshold at which the powers of the gaps above it sum to 1, for one row of scores: Newton's steps
// from the left on the norm of the gaps, which is all but linear in it.
function thresholdOf(row, exponent) {
  let threshold = Math.max(...row) - 1;
  for (let step = 0; step < 100; step++) {
    let sum = 0, slopes = 0;
    for (const score of row) {
      if (score <= threshold) continue;
      sum += (score - threshold) ** exponent;
      slopes += (score - threshold) ** (exponent - 1);
    }
    const norm = sum ** (1 / exponent), excess = (norm - 1) * norm ** (exponent - 1) / slopes;
    if (!(excess > 1e-16)) break;
    threshold += excess;
  }
  return threshold;
}

// The distribution of entmax for alpha above 1. Two of Newton's steps in jets, from a threshold that is
// right already, give it its two derivatives.
function entmax(z, alpha) {
  const exponent = 1 / (alpha - 1), x = z.map((score) => multiply(score, alpha - 1));
  const raise = (gap, p) => where(above(gap, 0), power(gap, p), 0);
  const gaps = (threshold) => x.map((score) => subtract(score, threshold));
  let threshold = still(largest(x));
  if (isNumber(threshold)) threshold = thresholdOf(x, exponent);
  else threshold.value.forEach((_, i, all) => { all[i] = thresholdOf(x.map((score) => at(score, i)), exponent); });
  for (let step = 0; step < 2; step++) {
    const gap = gaps(threshold);
    const excess = subtract(add(...gap.map((g) => raise(g, exponent))), 1);
    const slope = multiply(add(...gap.map((g) => raise(g, exponent - 1))), exponent);
    threshold = add(threshold, divide(excess, slope));
  }
  return gaps(threshold).map((gap) => raise(gap, exponent));
}

// p . z + H(p) - z_y for p = entmax(z), with Tsallis' entropy H.
function fenchelYoung(z, y, alpha) {
  if (alpha === 1) return surprise(z, y);
  const p = entmax(z, alpha);
  const held = (q) => where(above(q, 0), power(q, alpha), 0);
  const entropy = p.map((q) => multiply(subtract(q, held(q)), 1 / (alpha * (alpha - 1))));
  return subtract(add(dot(p, z), ...entropy), z[y]);
}

// Log of the mean over classes of exp((z_k - z_y + margin [k is not y]) / temperature), times temperature.
function robust(z, y, temperature, margin) {
  const violations = z.map((score, k) => add(subtract(score, z[y]), k === y ? 0 : margin));
  const total = logSumExp(violations.map((v) => multiply(v, 1 / temperature)));
  return multiply(subtract(total, Math.log(z.length)), temperature);
}

function halted(z, y, gamma, halt) {
  const logP = logProbability(z, y);
  const focal = multiply(focus(logComplement(z, y), gamma), negative(logP));
  const shift = (1 - (1 - halt) ** gamma) * Math.log(halt);
  return where(above(logP, Math.log(halt)), add(negative(logP), shift), focal);
}

// Minus the label's lead over its best rival.
const lag = (z, y) => subtract(largest(others(z, y)), z[y]);

const logits = {
  cross_entropy(z, y, { label_smoothing: smoothing }) {
    const total = logSumExp(z), label = add(multiply(z[y], 1 - smoothing), multiply(mean(z), smoothing));
    return subtract(total, label);
  },

  comp_sum_loss(z, y, { tau }) {
    if (tau === 1) return surprise(z, y);
    return multiply(expm1(multiply(surprise(z, y), 1 - tau)), 1 / (1 - tau));
  },

  encouraging_loss(z, y, { end_point: end }) {
    const logP = logProbability(z, y), bonus = logComplement(z, y);
    if (end === 1) return subtract(bonus, logP);
    const tangent = add(multiply(subtract(exp(logP), end), -1 / (1 - end)), Math.log1p(-end));
    return subtract(where(above(logP, Math.log(end)), tangent, bonus), logP);
  },

  focal_loss: (z, y, { gamma }) => halted(z, y, gamma, 1),
  halted_focal_loss: (z, y, { gamma, halt }) => halted(z, y, gamma, halt),

  dual_focal_loss(z, y, { gamma }) {
    const logP = logProbability(z, y);
    const below = others(z, y).map((score) => where(above(z[y], score), score, -1e30));
    const rival = exp(subtract(largest(below), logSumExp(z)));
    return multiply(power(add(exp(logComplement(z, y)), rival), gamma), negative(logP));
  },

  poly_loss: (z, y, { epsilon }) =>
    add(surprise(z, y), multiply(exp(logComplement(z, y)), epsilon)),

  // Each class is a decision of its own; the mean is over the classes.
  poly_focal_loss(z, y, { epsilon, gamma, alpha }) {
    return mean(z.map((score, k) => {
      const lead = k === y ? score : negative(score);
      const balance = alpha === null ? 1 : k === y ? alpha : 1 - alpha;
      const logMiss = negative(softplus(lead));
      const focal = multiply(focus(logMiss, gamma), softplus(negative(lead)));
      return add(multiply(focal, balance), multiply(focus(logMiss, gamma + 1), epsilon));
    }));
  },

  ldr_kl_loss(z, y, { temperature, margin, normalize }) {
    if (!normalize) return robust(z, y, temperature, margin);
    const f = z.map(softplus), average = mean(f);
    return robust(f.map((x) => divide(x, average)), y, temperature, margin);
  },

  squentropy_loss: (z, y) => add(surprise(z, y), mean(others(z, y).map(square))),

  rescaled_square_loss: (z, y, { scale, magnitude }) =>
    mean(z.map((score, k) => (k === y ? multiply(square(subtract(score, magnitude)), scale) : square(score)))),

  z_loss(z, y, { sharpness, offset }) {
    const center = mean(z), centered = z.map((score) => subtract(score, center));
    const deviation = power(larger(mean(centered.map(square)), 1e-12), 0.5);
    const lack = subtract(offset, divide(centered[y], deviation));
    return multiply(softplus(multiply(lack, sharpness)), 1 / sharpness);
  },

  spherical_softmax_loss: (z, y, { epsilon }) =>
    surprise(z.map((score) => log(add(square(score), epsilon))), y),

  brier_loss: (z, y) =>
    add(...softmax(z).map((p, k) => square(subtract(p, Number(k === y))))),

  spherical_loss: (z, y) =>
    negative(expm1(multiply(logProbability(z.map((score) => multiply(score, 2)), y), 0.5))),

  correctness_aware_loss(z, y) {
    const right = above(z[y], largest(others(z, y)));
    return square(subtract(exp(subtract(largest(z), logSumExp(z))), right));
  },

  entmax_loss: (z, y, { alpha }) => fenchelYoung(z, y, alpha),
  sparsemax_loss: (z, y) => fenchelYoung(z, y, 2),
  sparse_softmax_loss: (z, y, { k }) => subtract(logSumExp(descending(z).slice(0, k)), z[y]),

  crammer_singer_loss: (z, y, settings) => phiOf(settings)(negative(lag(z, y))),
  weston_watkins_loss: (z, y, settings) =>
    add(...others(z, y).map((score) => phiOf(settings)(subtract(z[y], score)))),
  lee_lin_wahba_loss(z, y, settings) {
    const center = mean(z);
    return add(...others(z, y).map((score) => phiOf(settings)(subtract(center, score))));
  },

  vector_scaling_loss(z, y, { gamma, tau, class_counts: counts }) {
    const most = Math.max(...counts), total = counts.reduce((sum, n) => sum + n);
    const scaled = z.map((score, k) =>
      add(multiply(score, (counts[k] / most) ** gamma), tau * Math.log(counts[k] / total)));
    return surprise(scaled, y);
  },
};

// --- Losses of pairs: u and v are arrays of unit vectors, and i is the anchor whose loss is asked for

const times = (x, factor) => x.map((entry) => multiply(entry, factor));
function similarities(x, list, temperature) {
  const scaled = times(x, 1 / temperature);
  return list.map((y) => dot(scaled, y));
}

// For both views of example i: the similarities to both views of all others.
function twoViews(u, v, i, temperature) {
  const negatives = [...others(u, i), ...others(v, i)];
  return [u[i], v[i]].map((view) => similarities(view, negatives, temperature));
}

const agreement = (u, v, i, temperature) => dot(times(u[i], 1 / temperature), v[i]);
const distances = (x, y) => x.map((entry, k) => square(subtract(entry, y[k])));
const root = (a) => where(above(a, 0), power(a, 0.5), 0);

function alignment(x, y, alpha) {
  const squares = add(...distances(x, y));
  return where(above(squares, 0), power(squares, alpha / 2), 0);
}

function uniformity(x, t) {
  const potentials = x.flatMap((a, i) =>
    x.slice(0, i).map((b) => multiply(add(...distances(a, b)), -t)));
  return subtract(logSumExp(potentials), Math.log(potentials.length));
}

function hyperbolic(x, y, c) {
  const room = multiply(subtract(1, multiply(dot(x, x), c)), subtract(1, multiply(dot(y, y), c)));
  const gap = root(divide(add(...distances(x, y)), room));
  return c === 0 ? multiply(gap, 2) : multiply(asinh(multiply(gap, Math.sqrt(c))), 2 / Math.sqrt(c));
}

// Each feature with mean 0 and variance 1 over the batch; a constant one is 0 throughout.
function standardized(x) {
  const features = x[0].map((_, k) => {
    const center = mean(x.map((row) => row[k])), centered = x.map((row) => subtract(row[k], center));
    const variance = mean(centered.map(square));
    return centered.map((entry) => where(above(variance, 1e-28), divide(entry, root(variance)), 0));
  });
  return features;
}

const pairs = {
  info_nce_loss(u, v, i, { temperature }) {
    const positive = agreement(u, v, i, temperature);
    return subtract(logSumExp(similarities(u[i], v, temperature)), positive);
  },

  nt_xent_loss(u, v, i, { temperature }) {
    const positive = agreement(u, v, i, temperature);
    const candidates = twoViews(u, v, i, temperature).map((negatives) => logSumExp([positive, ...negatives]));
    return subtract(mean(candidates), positive);
  },

  hard_contrastive_loss(u, v, i, { temperature, share }) {
    const positive = agreement(u, v, i, temperature), negatives = others(v, i);
    const number = Math.max(1, Math.ceil(share * negatives.length));
    const hardest = descending(similarities(u[i], negatives, temperature)).slice(0, number);
    return subtract(logSumExp([positive, ...hardest]), positive);
  },

  decoupled_contrastive_loss(u, v, i, { temperature }) {
    const repulsion = mean(twoViews(u, v, i, temperature).map(logSumExp));
    return subtract(repulsion, agreement(u, v, i, temperature));
  },

  weighted_decoupled_contrastive_loss(u, v, i, { temperature, sigma }) {
    const closeness = u.map((_, j) => exp(agreement(u, v, j, sigma)));
    const weight = subtract(2, divide(closeness[i], mean(closeness)));
    const repulsion = mean(twoViews(u, v, i, temperature).map(logSumExp));
    return subtract(repulsion, multiply(weight, agreement(u, v, i, temperature)));
  },

  info_loob_loss(u, v, i, { temperature }) {
    const there = logSumExp(similarities(u[i], others(v, i), temperature));
    const back = logSumExp(similarities(v[i], others(u, i), temperature));
    return subtract(add(there, back), agreement(u, v, i, temperature / 2));
  },

  cacr_loss(u, v, i, { t_neg: t, attached }) {
    const repulsion = [[u[i], others(v, i)], [v[i], others(u, i)]].map(([view, negatives]) => {
      const cosines = similarities(view, negatives, 1);
      const tilted = softmax(cosines.map((s) => multiply(attached ? s : still(s), 2 * t)));
      return subtract(2, multiply(dot(tilted, cosines), 2)); // the mean squared distance
    });
    return subtract(add(...distances(u[i], v[i])), mean(repulsion));
  },

  robust_global_contrastive_loss(u, v, i, { temperature, rho }) {
    const sums = mean(twoViews(u, v, i, temperature).map(logSumExp));
    const excess = add(sums, rho - Math.log(2 * (u.length - 1)));
    return subtract(multiply(excess, temperature), dot(u[i], v[i]));
  },

  // The noise of each anchor are the other positives of the batch, and Z is estimated from them.
  instance_nce_loss(u, v, i, { temperature, number }) {
    const noise = u.map((anchor, j) => similarities(anchor, others(v, j), temperature));
    const total = still(logSumExp(noise.flat()));
    const share = Math.log(number / noise.flat().length), count = Math.log(noise[i].length / number);
    const offset = add(total, share + count);
    const pushes = noise[i].map((s) => softplus(subtract(s, offset)));
    return add(softplus(subtract(offset, agreement(u, v, i, temperature))), ...pushes);
  },

  alignment_loss: (u, v, i, { alpha }) => alignment(u[i], v[i], alpha),

  hybrid_contrastive_loss(u, v, i, { mix, temperature, c }) {
    const infoNCE = (similarity) => {
      const positive = similarity(u[i], v[i]), negatives = [...others(u, i), ...others(v, i)];
      const totals = [u[i], v[i]].map((view) =>
        logSumExp([positive, ...negatives.map((other) => similarity(view, other))]));
      return subtract(mean(totals), positive);
    };
    const angle = infoNCE((x, y) => multiply(dot(x, y), 1 / temperature));
    const distance = infoNCE((x, y) => multiply(hyperbolic(x, y, c), -1 / temperature));
    return add(multiply(angle, 1 - mix), multiply(distance, mix));
  },
};

// Losses of a whole batch, which has no loss of its own for each anchor.
const batches = {
  align_uniform_loss(u, v, { alpha, t, uniform_weight: weight }) {
    const align = mean(u.map((x, i) => alignment(x, v[i], alpha)));
    return add(align, multiply(add(uniformity(u, t), uniformity(v, t)), weight / 2));
  },

  cross_correlation_loss(u, v, { redundancy_weight: weight }) {
    const a = standardized(u), b = standardized(v);
    const entries = a.flatMap((x, j) => b.map((y, k) => {
      const correlation = multiply(dot(x, y), 1 / u.length);
      return j === k ? square(subtract(1, correlation)) : multiply(square(correlation), weight);
    }));
    return add(...entries);
  },
};
