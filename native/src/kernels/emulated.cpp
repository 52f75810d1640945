// What amx.cpp does, in plain C++: its tiles and layout, and vectors of AVX-512's width, run by tests on any processor.
// Slow, and chosen by name alone.
#define LANES 16
#define TOGETHER 4
#include "dense.hpp"
#include "tiles.hpp"

namespace {

class Emulated {
 public:
  Emulated(int rows, size_t stride) : rows_(rows), stride_(stride) {}

  void multiply(const uint8_t* high, const uint8_t* low, const uint8_t* weights, Products& products) const {
    for (int row = 0; row < rows_; row++)
      for (int column = 0; column < LANES; column++) {
        uint32_t sums[4] = {};
        for (size_t unit = 0; unit < stride_; unit++) {
          const uint8_t* weight = weights + unit / tile_units * 2 * tile_bytes + place(unit % tile_units, column);
          const int states[2] = {(int8_t)high[row * stride_ + unit], low[row * stride_ + unit]};
          const int values[2] = {(int8_t)weight[0], weight[tile_bytes]};
          for (int which = 0; which < 4; which++) sums[which] += (uint32_t)(states[which / 2] * values[which % 2]);
        }
        for (int which = 0; which < 4; which++) products.sums[which][row][column] = (int32_t)sums[which];
      }
  }

 private:
  static size_t place(size_t unit, int column) { return unit / 4 * 64 + column * 4 + unit % 4; }

  int rows_;
  size_t stride_;
};

}  // namespace

namespace understudy {
extern const Kernels emulated_kernels;
const Kernels emulated_kernels = {"emulated", LANES, true, step_tiles<Emulated>, dense_all, fold_all, squash_all};
}  // namespace understudy
