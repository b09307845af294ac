// The references of the scans share this: a value with its running error bound, the dt chain of
// math.md 0.4, the gate, and how sums over tokens become gradients of parameters.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace adder::ref {

template <class Acc>
Acc sigmoid(Acc x) {
  const Acc e = std::exp(-std::abs(x));
  return (x < 0 ? e : Acc(1)) / (1 + e);
}

/// A value and S, the bound of its error in units of roundoff.
template <class Acc>
struct Bounded {
  Acc value = 0;
  Acc bound = 0;
};

/// delta and its slope d delta / d dt.
template <class Acc>
struct DtStep {
  Bounded<Acc> delta;
  Bounded<Acc> slope;
};

/// delta of raw dt and bias; `in` has the limits dt_min and dt_max.
template <class Inputs, class Acc>
DtStep<Acc> dt_step(const Inputs& in, bool softplus, Acc raw, Acc bias) {
  const Acc pre = raw + bias;
  const Acc pre_bound = std::abs(raw) + std::abs(bias);
  Bounded<Acc> sp{pre, pre_bound};
  Bounded<Acc> slope{1, 0};
  if (softplus && pre <= 20) {
    const Acc s = sigmoid(pre);
    sp.value = std::max(pre, Acc(0)) + std::log1p(std::exp(-std::abs(pre)));
    sp.bound = s * pre_bound + sp.value;
    slope = {s, s + s * sigmoid(-pre) * pre_bound};
  }
  if (sp.value < in.dt_min) return {{in.dt_min, std::abs(in.dt_min)}, {0, 0}};
  if (sp.value > in.dt_max) return {{in.dt_max, std::abs(in.dt_max)}, {0, 0}};
  return {sp, slope};
}

/// The gradient of y before the gate, and dz / y.
template <class Acc>
struct Gate {
  Bounded<Acc> gy;
  Bounded<Acc> dz_over_y;
};
template <class Acc>
Gate<Acc> no_gate(Acc gout) {
  return {{gout, std::abs(gout)}, {}};
}
/// From the gradient of y silu(z).
template <class Acc>
Gate<Acc> silu_gate(Acc gout, Acc z) {
  const Acc s = sigmoid(z);
  const Acc gy = gout * (z * s);
  return {{gy, std::abs(gy)},
          {gout * (s * (1 + z * (1 - s))), std::abs(gout) * s * (1 + std::abs(z))}};
}

/// Writes sums, or the bounds of their errors, to an array that may be absent; where the call
/// accumulates they are added to what is there.
template <class Acc>
void put_sums(const std::vector<Acc>& sums, bool accumulate, bool absolute, Acc* to) {
  for (size_t i = 0; to != nullptr && i < sums.size(); ++i) {
    if (accumulate) {
      to[i] = (absolute ? std::abs(to[i]) : to[i]) + sums[i];
    } else {
      to[i] = sums[i];
    }
  }
}

}  // namespace adder::ref
