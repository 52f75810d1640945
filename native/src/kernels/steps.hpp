// One step in time of many rows. A block's weights are read once and serve all rows while they are in the first cache.
#pragma once

#include "../kernels.hpp"
#include "cell.hpp"

namespace {

using understudy::gates;
using understudy::Recurrent;
using understudy::state_unit;
using understudy::Step;

// The sums of a block's gates for ROWS rows: whole numbers, so their order does not matter.
template <int ROWS>
inline void products(const int16_t* weights, int pairs, const int16_t* const* states, I (*sums)[gates]) {
  I sum[ROWS][gates] = {};  // a copy of its own, which the compiler keeps in registers
  for (int pair = 0; pair < pairs; pair++, weights += gates * LANES * 2) {
    Pairs beside[ROWS];
    for (int row = 0; row < ROWS; row++) beside[row] = all_pairs(states[row] + 2 * pair);
    for (int gate = 0; gate < gates; gate++) {
      const Pairs weight = load<Pairs>(weights + gate * LANES * 2);
      for (int row = 0; row < ROWS; row++) sum[row][gate] = dot(sum[row][gate], weight, beside[row]);
    }
  }
  for (int row = 0; row < ROWS; row++)
    for (int gate = 0; gate < gates; gate++) sums[row][gate] = sum[row][gate];
}

// A row's new cell and state in one block.
inline void update(const Step& step, const I* sums, const float* scales, int row, size_t width, size_t unit) {
  F gate[gates];
  for (int g = 0; g < gates; g++) {
    const F sum = __builtin_convertvector(sums[g], F) * load<F>(scales + g * LANES);
    gate[g] = sum + widened(step.inputs[row] + unit * gates + g * LANES);
  }
  float* cell = step.cells + row * width + unit;
  const Cell next = updated(gate[0], gate[1], gate[2], gate[3], step.first ? F{} : load<F>(cell));
  store(cell, next.cell);
  store(step.to + row * width + unit, __builtin_convertvector(rounded(next.state * state_unit), Shorts));
  float* out = step.out[row] + unit;
  store(out, step.maximum ? greatest(load<F>(out), next.state) : next.state);
}

template <int ROWS>
inline void advance(const Recurrent& weights, const Step& step, int block, int row) {
  const size_t width = (size_t)weights.blocks * LANES, unit = (size_t)block * LANES;
  I sums[ROWS][gates] = {};
  if (!step.first) {
    const int16_t* states[ROWS];
    for (int r = 0; r < ROWS; r++) states[r] = step.from + (row + r) * width;
    const size_t size = (size_t)weights.pairs * gates * LANES * 2;
    products<ROWS>(weights.weights + block * size, weights.pairs, states, sums);
  }
  for (int r = 0; r < ROWS; r++) {
    __builtin_prefetch(step.coming[row + r] + unit * gates);
    if (LANES == 16) __builtin_prefetch(step.coming[row + r] + unit * gates + 32);
    update(step, sums[r], weights.scales + unit * gates, row + r, width, unit);
  }
}

void step_all(const Recurrent& weights, const Step& step) {
  for (int block = 0; block < weights.blocks; block++) {
    int row = 0;
    for (; row + TOGETHER <= step.rows; row += TOGETHER) advance<TOGETHER>(weights, step, block, row);
    for (; row < step.rows; row++) advance<1>(weights, step, block, row);
  }
}

}  // namespace
