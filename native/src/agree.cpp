// Kernels against those in plain C++, in steps that need every path: whole and part tiles, a group that overlaps the one
// before, few rows, sums at their bounds.
#include <cstring>
#include <vector>

#include "kernels.hpp"

namespace understudy {

extern const Kernels emulated_kernels;

namespace {

constexpr size_t hidden = 70, pairs = hidden / 2, tokens = 7;

// The same numbers each time, on every machine.
class Random {
 public:
  uint32_t operator()(uint32_t below) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return uint32_t(state_ >> 33) % below;
  }

 private:
  uint64_t state_ = 1;
};

// One direction of a made-up network, as kernels of so many lanes want it.
class Direction {
 public:
  explicit Direction(const Kernels& kernels)
      : lanes_(kernels.lanes),
        weights_(width() * pairs * gates * 2),
        tiles_(kernels.tiles ? width() / lanes_ * gates * spans(pairs) * 2 * tile_bytes : 0),
        scales_(width() * gates),
        table_(tokens * gates * width()) {
    constexpr int most = INT32_MAX / 8192 / int(hidden) - 1;
    Random random;
    for (size_t unit = 0; unit < hidden; unit++)
      for (size_t gate = 0; gate < gates; gate++) {
        const size_t block = unit / lanes_ * gates + gate, lane = unit % lanes_;
        scales_[block * lanes_ + lane] = -1e-7f * float(1 + random(9));
        for (size_t token = 0; token < tokens; token++)  // halves of either sign, from 2^-7 to 100
          table_[token * gates * width() + block * lanes_ + lane] = uint16_t((random(2) << 15) | (0x2000 + random(0x3600)));
        for (size_t from = 0; from < hidden; from++) put(unit, gate, from, int16_t(int(random(2 * most + 1)) - most));
      }
  }

  size_t width() const { return (hidden + lanes_ - 1) / lanes_ * lanes_; }
  const uint16_t* token(size_t which) const { return &table_[which % tokens * gates * width()]; }
  Recurrent recurrent() const {
    return {weights_.data(), tiles_.empty() ? nullptr : tiles_.data(), scales_.data(), int(width() / lanes_), int(pairs)};
  }

 private:
  void put(size_t unit, size_t gate, size_t from, int16_t value) {
    const size_t block = unit / lanes_, lane = unit % lanes_;
    weights_[(((block * pairs + from / 2) * gates + gate) * lanes_ + lane) * 2 + from % 2] = value;
    if (tiles_.empty()) return;
    uint8_t* tile = &tiles_[((block * gates + gate) * spans(pairs) + from / tile_units) * 2 * tile_bytes];
    const size_t place = (from % tile_units / 4 * lanes_ + lane) * 4 + from % 4;
    tile[place] = uint8_t(value >> 8);
    tile[tile_bytes + place] = uint8_t(value);
  }

  size_t lanes_;
  std::vector<int16_t> weights_;
  std::vector<uint8_t> tiles_;
  std::vector<float> scales_;
  std::vector<uint16_t> table_;
};

// What rows come to after some steps: of each unit its state, cell and output.
std::vector<float> after_steps(const Kernels& kernels, const Direction& direction, int rows, bool maximum) {
  const size_t width = direction.width();
  std::vector<int16_t> from(rows * width), to(rows * width);
  std::vector<float> cells(rows * width), out(rows * width, -1.0f);
  std::vector<uint8_t> halves(kernels.tiles ? 2 * rows * spans(pairs) * tile_units : 0);
  std::vector<const uint16_t*> inputs(rows);
  std::vector<float*> places(rows);
  for (int row = 0; row < rows; row++) places[row] = &out[row * width];
  for (int step = 0; step < 3; step++) {
    for (int row = 0; row < rows; row++) inputs[row] = direction.token(row + 3 * step);
    kernels.step(direction.recurrent(), {rows, step == 0, maximum, inputs.data(), inputs.data(), from.data(), to.data(),
                                         cells.data(), places.data(), halves.data()});
    from.swap(to);
  }
  std::vector<float> found;
  for (int row = 0; row < rows; row++)
    for (size_t unit = row * width; unit < row * width + hidden; unit++)
      found.insert(found.end(), {float(from[unit]), cells[unit], out[unit]});
  return found;
}

}  // namespace

bool agree(const Kernels& kernels) {
  const Direction theirs(kernels), ours(emulated_kernels);
  for (const int rows : {1, 4, 16, 19})
    for (const bool maximum : {false, true}) {
      const std::vector<float> one = after_steps(kernels, theirs, rows, maximum);
      const std::vector<float> other = after_steps(emulated_kernels, ours, rows, maximum);
      if (std::memcmp(one.data(), other.data(), one.size() * sizeof(float))) return false;
    }
  return true;
}

}  // namespace understudy
