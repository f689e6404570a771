// Jets: numbers that know how they change. A jet holds the values of n examples, their slopes in m
// directions (n numbers for each direction, one after another) and, where there is one direction and it is
// asked for, the second derivatives. A plain number is a jet that does not change.

class Jet {
  constructor(value, slope, bend) {
    this.value = value;
    this.slope = slope;
    this.bend = bend;
  }
  like() { // zeros of the same shape
    const zeros = (array) => new Float64Array(array.length);
    return new Jet(zeros(this.value), zeros(this.slope), this.bend && zeros(this.bend));
  }
}

const isNumber = (x) => typeof x === "number";
const at = (x, i) => (isNumber(x) ? x : x.value[i]);

// A function of one jet, from its first two derivatives.
function apply(a, f, first, second) {
  if (isNumber(a)) return f(a);
  const result = a.like(), n = a.value.length;
  for (let i = 0; i < n; i++) {
    const x = a.value[i], k = first(x);
    result.value[i] = f(x);
    for (let j = i; j < a.slope.length; j += n) result.slope[j] = k * a.slope[j];
    if (a.bend) result.bend[i] = k * a.bend[i] + second(x) * a.slope[i] ** 2;
  }
  return result;
}

// result += factor * a
function accumulate(result, a, factor) {
  for (let i = 0; i < a.value.length; i++) result.value[i] += factor * a.value[i];
  for (let j = 0; j < a.slope.length; j++) result.slope[j] += factor * a.slope[j];
  if (a.bend) for (let i = 0; i < a.bend.length; i++) result.bend[i] += factor * a.bend[i];
}

// result += a * b
function accumulateProduct(result, a, b) {
  const n = a.value.length;
  for (let i = 0; i < n; i++) {
    const x = a.value[i], y = b.value[i];
    result.value[i] += x * y;
    for (let j = i; j < a.slope.length; j += n) result.slope[j] += x * b.slope[j] + y * a.slope[j];
    if (a.bend) result.bend[i] += x * b.bend[i] + 2 * a.slope[i] * b.slope[i] + y * a.bend[i];
  }
}

// The sum of the products of two lists.
function dot(a, b) {
  let constant = 0, result = null;
  for (let k = 0; k < a.length; k++) {
    const x = a[k], y = b[k];
    if (isNumber(x) && isNumber(y)) constant += x * y;
    else {
      result ??= (isNumber(x) ? y : x).like();
      if (isNumber(y)) accumulate(result, x, y);
      else if (isNumber(x)) accumulate(result, y, x);
      else accumulateProduct(result, x, y);
    }
  }
  if (!result) return constant;
  if (constant) for (let i = 0; i < result.value.length; i++) result.value[i] += constant;
  return result;
}

const add = (...terms) => dot(terms, terms.map(() => 1));
const multiply = (a, b) => dot([a], [b]);
const negative = (a) => multiply(a, -1);
const subtract = (a, b) => dot([a, b], [1, -1]);
const divide = (a, b) => multiply(a, power(b, -1));
const square = (a) => multiply(a, a);
const mean = (list) => multiply(add(...list), 1 / list.length);

const exp = (a) => apply(a, Math.exp, Math.exp, Math.exp);
const expm1 = (a) => apply(a, Math.expm1, Math.exp, Math.exp);
const log = (a) => apply(a, Math.log, (x) => 1 / x, (x) => -1 / (x * x));
const asinh = (a) => apply(a, Math.asinh, (x) => (1 + x * x) ** -0.5, (x) => -x * (1 + x * x) ** -1.5);
const cos = (a) => apply(a, Math.cos, (x) => -Math.sin(x), (x) => -Math.cos(x));
const sin = (a) => apply(a, Math.sin, Math.cos, (x) => -Math.sin(x));
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (a) =>
  apply(a, (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), sigmoid, (x) => sigmoid(x) * sigmoid(-x));

function power(a, p) {
  const monomial = (factor, exponent) => (x) => (factor === 0 ? 0 : factor * x ** exponent);
  return apply(a, monomial(1, p), monomial(p, p - 1), monomial(p * (p - 1), p - 2));
}

// --- Where it depends on the example

// 1 where a is above b, and 0 elsewhere.
function above(a, b) {
  if (isNumber(a) && isNumber(b)) return Number(a > b);
  const result = (isNumber(a) ? b : a).like();
  for (let i = 0; i < result.value.length; i++) result.value[i] = Number(at(a, i) > at(b, i));
  return result;
}

function where(condition, a, b) {
  if (isNumber(condition)) return condition ? a : b;
  const result = condition.like();
  for (let i = 0; i < result.value.length; i++) copyExample(result, i, condition.value[i] ? a : b);
  return result;
}

// Copies what a jet says of example i.
function copyExample(result, i, source) {
  const n = result.value.length;
  result.value[i] = at(source, i);
  if (isNumber(source)) return;
  for (let j = i; j < result.slope.length; j += n) result.slope[j] = source.slope[j];
  if (result.bend) result.bend[i] = source.bend[i];
}

const larger = (a, b) => where(above(a, b), a, b);
const largest = (list) => list.reduce(larger);
const positivePart = (a) => larger(a, 0);

// The same numbers from the largest to the smallest, each example's in its own order.
function descending(list) {
  const jet = list.find((x) => !isNumber(x));
  if (!jet) return [...list].sort((a, b) => b - a);
  const ranked = list.map(() => jet.like());
  for (let i = 0; i < jet.value.length; i++) {
    const order = [...list].sort((a, b) => at(b, i) - at(a, i));
    order.forEach((source, rank) => copyExample(ranked[rank], i, source));
  }
  return ranked;
}

// The same value, held still: a stopped gradient.
function still(a) {
  if (isNumber(a)) return a;
  const result = a.like();
  result.value.set(a.value);
  return result;
}

// Log of the sum of the exponentials, whose slope is the mean slope under the softmax.
function logSumExp(list) {
  const jet = list.find((x) => !isNumber(x));
  const logSum = (numbers) => {
    const top = Math.max(...numbers);
    return top + Math.log(numbers.reduce((sum, x) => sum + Math.exp(x - top), 0));
  };
  if (!jet) return logSum(list);
  const result = jet.like(), n = jet.value.length;
  for (let i = 0; i < n; i++) {
    const row = list.map((x) => at(x, i));
    result.value[i] = logSum(row);
    list.forEach((x, k) => {
      if (isNumber(x)) return;
      const share = Math.exp(row[k] - result.value[i]);
      for (let j = i; j < x.slope.length; j += n) result.slope[j] += share * x.slope[j];
      if (x.bend) result.bend[i] += share * (x.bend[i] + x.slope[i] ** 2);
    });
    if (result.bend) result.bend[i] -= result.slope[i] ** 2;
  }
  return result;
}

function softmax(list) {
  const total = logSumExp(list);
  return list.map((x) => exp(subtract(x, total)));
}
