// Scores and probabilities as text.

/** Three decimals; two significant digits below 0.001, as scores of calibrated networks may be tiny. */
export function decimal(score) {
  const text = score !== 0 && Math.abs(score) < 0.001 ? score.toPrecision(2) : score.toFixed(3);
  return text.replaceAll("-", "−");
}

/** A probability in percent. */
export function chance(probability) {
  return probability < 0.01 ? "<\u00a01\u00a0%" : `${Math.round(100 * probability)}\u00a0%`;
}
