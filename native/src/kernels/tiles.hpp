// A step in time by a unit that multiplies tiles of bytes, as AMX does, with the same bits as step_all.
//
// A whole number of 16 bits is 256 * high + low, of which high has the sign. So a product is four products of bytes, and
// their sums, modulo 2^32, are the same whole number. A tile of states has 16 rows of tile_units; one of weights, for 16
// columns, has 16 rows of 4 units of each column.
//
// Weights: (blocks, gates, spans, 2, 16, lanes, 4) bytes, high before low, where a span is tile_units of h.
// States: (2, rows, spans * tile_units) bytes, high before low, the units that are too many zero.
#pragma once

#include "steps.hpp"

namespace {

using understudy::tile_bytes;
using understudy::tile_units;

constexpr int tile_rows = 16;
constexpr int least_rows = 4;  // fewer fill so little of a tile that vectors are as quick: by arithmetic, not measured

// Of one gate: high * high, high * low, low * high and low * low, states before weights.
struct Products {
  alignas(64) int32_t sums[4][tile_rows][LANES];
};

inline I whole(const Products& products, int row) {
  const auto part = [&](int which) { return load<U>(products.sums[which][row]); };
  return (I)((part(0) << 16) + ((part(1) + part(2)) << 8) + part(3));
}

void split(const Recurrent& weights, const Step& step, size_t stride) {
  const size_t width = (size_t)weights.blocks * LANES;
  for (int row = 0; row < step.rows; row++)
    for (size_t unit = 0; unit < width; unit += LANES) {
      const Shorts state = load<Shorts>(step.from + row * width + unit);
      uint8_t* high = step.halves + row * stride + unit;
      store(high, __builtin_convertvector(state >> 8, Bytes));
      store(high + step.rows * stride, __builtin_convertvector(state, Bytes));
    }
}

template <class Unit>
void step_tiles(const Recurrent& weights, const Step& step) {
  if (step.first || step.rows < least_rows) return step_all(weights, step);
  // As many rows in each group, so that one set-up of the unit serves all; the last group may begin in the one before.
  const int groups = (step.rows + tile_rows - 1) / tile_rows, rows = (step.rows + groups - 1) / groups;
  const size_t spans = understudy::spans(weights.pairs), stride = spans * tile_units;
  split(weights, step, stride);
  const Unit unit(rows, stride);
  Products products[gates];
  Waiting waiting;
  const uint8_t* block_weights = weights.tiles;
  for (int block = 0; block < weights.blocks; block++, block_weights += gates * spans * 2 * tile_bytes)
    for (int row = 0; row < step.rows;) {
      const int first = row + rows <= step.rows ? row : step.rows - rows;
      const uint8_t* high = step.halves + first * stride;
      for (int gate = 0; gate < gates; gate++)
        unit.multiply(high, high + step.rows * stride, block_weights + gate * spans * 2 * tile_bytes, products[gate]);
      for (; row < first + rows; row++) {
        Due& due = waiting.due[waiting.size++];
        prepare(weights, step, block, row, due);
        for (int gate = 0; gate < gates; gate++) due.sums[gate] = whole(products[gate], row - first);
        if (waiting.size == most_due) update(waiting, step.first, step.maximum);
      }
    }
  update(waiting, step.first, step.maximum);
}

}  // namespace
