// The LSTM's cell: gates -> new cell and state. Sigmoid and tanh share their divisions, two for each unit.
//
// Gates come as powers of two: of the input, output and forget gates y = -x / ln 2, so that sigmoid(x) = 1 / (1 + 2^y);
// of the cell's y = -2 x / ln 2, so that tanh(x) = (1 - 2^y) / (1 + 2^y). The weights were multiplied accordingly.
#pragma once

#include "lanes.hpp"

namespace {

constexpr float sigmoid_unit = -1.44269504088896341f;
constexpr float tanh_unit = -2.88539008177792681f;

// 2^y for y within +-28, beyond which sigmoid and tanh are 0 or 1 to within 4e-9: relative error 1.6e-7. The product of
// three is then below 2^85, and times a cell, which grows by one a token at most, still a float.
inline F power(F y) {
  y = least(greatest(y, all(-28.0f)), all(28.0f));
  const F shifted = y + no_fractions;
  const F r = y - (shifted - no_fractions);  // -1/2 to 1/2
  // The polynomial of least relative error, 9e-8, among those that are 1 at 0.
  F p = r * 0.001326472731307149f + 0.009671512991189957f;
  p = p * r + 0.05550733581185341f;
  p = p * r + 0.24022242426872253f;
  p = p * r + 0.6931470036506653f;
  p = p * r + 1.0f;
  return (F)((U)p + ((U)(I)shifted << 23));  // 2^23 times the whole part, into the exponent
}

// sigmoid(forget) * cell + sigmoid(in) * tanh(candidate), over one denominator
inline F next_cell(F in, F forget, F candidate, F cell) {
  const F a = power(in), f = power(forget), b = power(candidate);
  const F new_part = (a + 1.0f) * (b + 1.0f);
  const F old_part = f + 1.0f;
  return (cell * new_part + (1.0f - b) * old_part) / (new_part * old_part);
}

// sigmoid(out) * tanh(cell), likewise
inline F next_state(F out, F cell) {
  const F d = power(cell * tanh_unit), o = power(out);
  return (1.0f - d) / ((o + 1.0f) * (d + 1.0f));
}

}  // namespace
