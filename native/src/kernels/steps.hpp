// One step in time of many rows. A block's weights are read once and serve all rows while they are in the first cache.
#pragma once

#include "../kernels.hpp"
#include "cell.hpp"

namespace {

using understudy::gates;
using understudy::Recurrent;
using understudy::state_unit;
using understudy::Step;

// What is left to do for one row in one block once its sums are known.
struct Due {
  I sums[gates];
  const float* scales;
  const uint16_t* input;
  float* cell;
  int16_t* state;
  float* out;
};

// Each update is a long chain of operations that wait for each other, so several are done side by side, in two halves.
constexpr int most_due = 8;

struct Waiting {
  Due due[most_due];
  int size = 0;
};

// The sums of a block's gates for ROWS rows: whole numbers, so their order does not matter.
template <int ROWS>
inline void multiply(const int16_t* weights, int pairs, const int16_t* const* states, Due* due) {
  I sum[ROWS][gates] = {};  // a copy of its own, which the compiler keeps in registers
  for (int pair = 0; pair < pairs; pair++, weights += gates * LANES * 2) {
    if (ROWS == 1)  // nothing else hides that weights come from the second cache
      for (int line = 0; line < gates * LANES * 4; line += 64) __builtin_prefetch((const char*)weights + 1024 + line);
    Pairs beside[ROWS];
    for (int row = 0; row < ROWS; row++) beside[row] = all_pairs(states[row] + 2 * pair);
    for (int gate = 0; gate < gates; gate++) {
      const Pairs weight = load<Pairs>(weights + gate * LANES * 2);
      for (int row = 0; row < ROWS; row++) sum[row][gate] = dot(sum[row][gate], weight, beside[row]);
    }
  }
  for (int row = 0; row < ROWS; row++)
    for (int gate = 0; gate < gates; gate++) due[row].sums[gate] = sum[row][gate];
}

inline F gate_of(const Due& due, int gate) {
  const F sum = __builtin_convertvector(due.sums[gate], F) * load<F>(due.scales + gate * LANES);
  return sum + widened(due.input + gate * LANES);
}

void update(Waiting& waiting, bool first, bool maximum) {
  F cells[most_due], out_gates[most_due];
  const int size = waiting.size;
  for (int place = 0; place < size; place++) {
    const Due& due = waiting.due[place];
    const F before = first ? F{} : load<F>(due.cell);
    cells[place] = next_cell(gate_of(due, 0), gate_of(due, 2), gate_of(due, 3), before);
    out_gates[place] = gate_of(due, 1);
    store(due.cell, cells[place]);
  }
  for (int place = 0; place < size; place++) {
    const Due& due = waiting.due[place];
    const F state = next_state(out_gates[place], cells[place]);
    store_short(due.state, rounded(state * state_unit));
    store(due.out, maximum ? greatest(load<F>(due.out), state) : state);
  }
  waiting.size = 0;
}

// What one row's update in one block reads and writes, all but its sums.
inline void prepare(const Recurrent& weights, const Step& step, int block, int row, Due& due) {
  const size_t width = (size_t)weights.blocks * LANES, unit = (size_t)block * LANES;
  const size_t place = row * width + unit;
  due.scales = weights.scales + unit * gates;
  due.input = step.inputs[row] + unit * gates;
  due.cell = step.cells + place;
  due.state = step.to + place;
  due.out = step.out[row] + unit;
  __builtin_prefetch(step.coming[row] + unit * gates);
  if (LANES == 16) __builtin_prefetch(step.coming[row] + unit * gates + 32);
}

template <int ROWS>
inline void advance(const Recurrent& weights, const Step& step, int block, int row, Waiting& waiting) {
  Due* due = waiting.due + waiting.size;
  const int16_t* states[ROWS];
  for (int r = 0; r < ROWS; r++) {
    states[r] = step.from + (row + r) * (size_t)weights.blocks * LANES;
    prepare(weights, step, block, row + r, due[r]);
    if (step.first)
      for (int gate = 0; gate < gates; gate++) due[r].sums[gate] = I{};
  }
  const size_t size = (size_t)weights.pairs * gates * LANES * 2;
  if (!step.first) multiply<ROWS>(weights.weights + block * size, weights.pairs, states, due);
  waiting.size += ROWS;
  if (waiting.size + TOGETHER > most_due) update(waiting, step.first, step.maximum);
}

void step_all(const Recurrent& weights, const Step& step) {
  Waiting waiting;
  for (int block = 0; block < weights.blocks; block++) {
    int row = 0;
    for (; row + TOGETHER <= step.rows; row += TOGETHER) advance<TOGETHER>(weights, step, block, row, waiting);
    for (; row < step.rows; row++) advance<1>(weights, step, block, row, waiting);
  }
  update(waiting, step.first, step.maximum);
}

}  // namespace
