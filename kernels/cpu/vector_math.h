#pragma once
// exp and what is made of it, lane by lane. NaN stays NaN, −∞ and ∞ are right. Polynomials: minimax fits (Remez) of the stated
// interval. Bounds, against the exact value, over all floats: exp 2 ulp (subnormal results: 1 unit of the smallest subnormal);
// sigmoid 3 ulp where the result is normal; tanh 4 ulp; normal_cdf 1e-6 relative for x ≥ −3, 6e-6 for x ≥ −8.
#include "kernels/cpu/vec.h"

namespace graft::cpu {

/// 2ⁿ·x for whole n in [−300, 300], rounded once.
GRAFT_INLINE Vec times_power_of_two(Vec x, Vec n) {
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(0xffff, x, n);  // the plain one warns in g++ 12
#else
  const IntVec whole = __builtin_convertvector(n, IntVec), half = whole >> 1, rest = whole - half;
  return x * reinterpret_cast<Vec>((half + 127) << 23) * reinterpret_cast<Vec>((rest + 127) << 23);
#endif
}

GRAFT_INLINE Vec exp(Vec x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f, kRound = 12582912.0f;  // 1.5·2²³
  x = min(broadcast(89.0f), x);    // e⁸⁹ > the largest float
  x = max(broadcast(-105.0f), x);  // e⁻¹⁰⁵ < half the smallest
  const Vec n = fma(x, broadcast(kLog2E), broadcast(kRound)) - kRound;
  const Vec r = fma(n, broadcast(-kLn2Low), fma(n, broadcast(-kLn2High), x));  // |r| ≤ ½ ln 2
  Vec p = broadcast(1.381454247e-3f);
  p = fma(p, r, broadcast(8.368745038e-3f));
  p = fma(p, r, broadcast(4.166839074e-2f));
  p = fma(p, r, broadcast(1.66665204e-1f));
  p = fma(p, r, broadcast(4.999999343e-1f));
  p = fma(p, r * r, r) + 1.0f;
  return times_power_of_two(p, n);
}

/// exp for −∞ ≤ x ≤ 88, as softmax needs it: less to do than exp; the bound is 2 + |x|/16 ulp, 2 + |x|/2 where a fused multiply-add is not one.
GRAFT_INLINE Vec exp_nonpositive(Vec x) {
  constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f, kRound = 12582912.0f;  // 1.5·2²³
  x = max(broadcast(-105.0f), x);
  const Vec n = fma(x, broadcast(kLog2E), broadcast(kRound)) - kRound;
  const Vec r = fma(n, broadcast(-kLn2), x);  // |r| ≤ ½ ln 2
  Vec p = broadcast(8.31250149e-3f);
  p = fma(p, r, broadcast(4.18903323e-2f));
  p = fma(p, r, broadcast(1.66671154e-1f));
  p = fma(p, r, broadcast(4.99992303e-1f));
  p = fma(p, r, broadcast(1.0f));
  p = fma(p, r, broadcast(1.0f));
  return times_power_of_two(p, n);
}

GRAFT_INLINE Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

GRAFT_INLINE Vec tanh(Vec x) {
  const Vec a = abs(x), y = x * x;
  Vec p = broadcast(-5.704986993e-3f);
  p = fma(p, y, broadcast(2.063908724e-2f));
  p = fma(p, y, broadcast(-5.373971509e-2f));
  p = fma(p, y, broadcast(1.33314422e-1f));
  p = fma(p, y, broadcast(-3.333328194e-1f));
  const Vec near = fma(p, y * x, x);  // |x| ≤ 0.625
  const Vec far = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  return a <= 0.625f ? near : x < 0.0f ? -far : far;
}

/// Φ(x), the standard normal distribution function.
GRAFT_INLINE Vec normal_cdf(Vec x) {
  const Vec t = 1.0f / (1.0f + 0.282842712f * abs(x));  // erfc(z) = e^(−z²)·t·Q(t), t = 1/(1 + 0.4z), z = |x|/√2
  Vec q = broadcast(2.757302727e-2f);
  q = fma(q, t, broadcast(-7.067355305e-2f));
  q = fma(q, t, broadcast(-6.762376717e-2f));
  q = fma(q, t, broadcast(2.719982991e-1f));
  q = fma(q, t, broadcast(-5.627712866e-2f));
  q = fma(q, t, broadcast(2.560052997e-1f));
  q = fma(q, t, broadcast(1.843846312e-1f));
  q = fma(q, t, broadcast(2.291577588e-1f));
  q = fma(q, t, broadcast(2.254554564e-1f));
  const Vec tail = exp(x * x * -0.5f) * t * q * 0.5f;
  return x < 0.0f ? tail : 1.0f - tail;
}

}  // namespace graft::cpu
