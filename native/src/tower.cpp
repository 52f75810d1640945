#include "tower.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <numeric>

#include "arithmetic.hpp"

namespace understudy {

namespace {

constexpr size_t most_rows = 32;  // that step together: their states and cells still fit the second cache
constexpr double tau[gates] = {-1.44269504088896341, -1.44269504088896341, -1.44269504088896341, -2.88539008177792681};
// By what each gate's sum is multiplied; why: kernels/cell.hpp

void require_finite(const float* values, size_t size, const char* name) {
  if (!std::all_of(values, values + size, [](float value) { return std::isfinite(value); }))
    throw std::invalid_argument(std::string(name) + " has values that are not finite numbers");
}

// By how much a gate's recurrent weights are multiplied to become whole numbers of 16 bits. With |h| <= 1 no sum of
// products may leave 32 bits, also where each weight was rounded up.
double whole_unit(const float* row, size_t hidden) {
  double largest = 0, sum = 0;
  for (size_t unit = 0; unit < hidden; unit++) {
    largest = std::max(largest, std::abs(double{row[unit]}));
    sum += std::abs(double{row[unit]});
  }
  if (largest == 0) return 1;
  const double room = double(INT32_MAX) / state_unit - double(hidden);
  return std::min(double{INT16_MAX} / largest, room / sum);
}

}  // namespace

Tower::Tower(const Kernels& kernels, const LstmWeights& weights, Pool& pool)
    : kernels_(kernels), vocabulary_(weights.vocabulary), hidden_(weights.hidden) {
  const size_t lanes = kernels.lanes;
  width_ = (hidden_ + lanes - 1) / lanes * lanes;
  require_finite(weights.scales, vocabulary_, "the embedding's scales");
  require_finite(weights.input, 2 * gates * hidden_ * weights.embedding, "the LSTM's input weights");
  require_finite(weights.recurrent, 2 * gates * hidden_ * hidden_, "the LSTM's recurrent weights");
  require_finite(weights.bias, 2 * 2 * gates * hidden_, "the LSTM's bias");
  pack(weights);
  fold(weights, pool);
}

void Tower::pack(const LstmWeights& weights) {
  const StandardArithmetic standard;
  const size_t lanes = kernels_.lanes, pairs = (hidden_ + 1) / 2;
  recurrent_ = array<int16_t>(2 * width_ * gates * pairs * 2);
  scales_ = array<float>(2 * width_ * gates);
  std::fill_n(recurrent_.get(), 2 * width_ * gates * pairs * 2, int16_t{0});
  std::fill_n(scales_.get(), 2 * width_ * gates, 0.0f);
  tiles_ = array<uint8_t>(2 * tiles_size());
  std::fill_n(tiles_.get(), 2 * tiles_size(), uint8_t{0});
  for (size_t direction = 0; direction < 2; direction++)
    for (size_t gate = 0; gate < gates; gate++)
      for (size_t unit = 0; unit < hidden_; unit++) {
        const float* row = weights.recurrent + ((direction * gates + gate) * hidden_ + unit) * hidden_;
        const double whole = whole_unit(row, hidden_);
        const size_t block = direction * width_ / lanes + unit / lanes, lane = unit % lanes;
        scales_[(block * gates + gate) * lanes + lane] = float(tau[gate] / (whole * state_unit));
        for (size_t from = 0; from < hidden_; from++) {
          const int16_t value = int16_t(std::lrint(row[from] * whole));
          recurrent_[(((block * pairs + from / 2) * gates + gate) * lanes + lane) * 2 + from % 2] = value;
          if (!kernels_.tiles) continue;
          uint8_t* tile = &tiles_[((block * gates + gate) * spans(pairs) + from / tile_units) * 2 * tile_bytes];
          const size_t place = (from % tile_units / 4 * lanes + lane) * 4 + from % 4;
          tile[place] = uint8_t(value >> 8);
          tile[tile_bytes + place] = uint8_t(value);
        }
      }
}

size_t Tower::tiles_size() const {
  return kernels_.tiles ? width_ / kernels_.lanes * gates * spans((hidden_ + 1) / 2) * 2 * tile_bytes : 0;
}

Recurrent Tower::recurrent(int direction) const {
  const size_t pairs = (hidden_ + 1) / 2;
  return {recurrent_.get() + direction * width_ * gates * pairs * 2,
          kernels_.tiles ? tiles_.get() + direction * tiles_size() : nullptr,
          scales_.get() + direction * width_ * gates,
          int(width_ / kernels_.lanes),
          int(pairs)};
}

void Tower::fold(const LstmWeights& weights, Pool& pool) {
  const size_t lanes = kernels_.lanes, inputs = weights.embedding, columns = 2 * width_ * gates;
  const auto product = array<float>(columns * inputs), bias = array<float>(columns);
  std::fill_n(product.get(), columns * inputs, 0.0f);
  std::fill_n(bias.get(), columns, 0.0f);
  for (size_t direction = 0; direction < 2; direction++)
    for (size_t gate = 0; gate < gates; gate++)
      for (size_t unit = 0; unit < hidden_; unit++) {
        const size_t row = gate * hidden_ + unit;
        const size_t block = (direction * width_ / lanes + unit / lanes) * gates + gate, lane = unit % lanes;
        const float* biases = weights.bias + direction * 2 * gates * hidden_;
        bias[block * lanes + lane] = float(tau[gate] * (double{biases[row]} + biases[gates * hidden_ + row]));
        const float* from = weights.input + (direction * gates * hidden_ + row) * inputs;
        for (size_t input = 0; input < inputs; input++)
          product[(block * inputs + input) * lanes + lane] = float(tau[gate] * from[input]);
      }
  table_ = array<uint16_t>(vocabulary_ * columns);
  const Dense layer{product.get(), bias.get(), int(columns / lanes), int(inputs)};
  const Fold fold{layer, weights.values, weights.scales, table_.get()};
  constexpr size_t share = 1024;
  const auto some = [&](int part) {
    kernels_.fold(fold, part * share, std::min(vocabulary_, (part + 1) * share));
  };
  pool.run(int((vocabulary_ + share - 1) / share), some);
}

// Rows that step together, the longest first.
struct Tower::Part {
  std::vector<Row> rows;
  std::vector<float*> states;  // where each row's begin
  Pooling pooling;
};

void Tower::read(const Part& part, int direction, Stop stop) const {
  const size_t rows = part.rows.size(), size = rows * width_;
  const Recurrent weights = recurrent(direction);
  auto from = array<int16_t>(size), to = array<int16_t>(size);
  const auto cells = array<float>(size);
  const size_t bytes = kernels_.tiles ? 2 * rows * spans(weights.pairs) * tile_units : 0;
  const auto halves = array<uint8_t>(bytes);
  std::fill_n(halves.get(), bytes, uint8_t{0});
  std::vector<const uint16_t*> now(rows), coming(rows);
  std::vector<float*> out(rows);
  const auto place = [&](const Row& row, int step) { return direction ? row.length - 1 - step : step; };
  const auto folded = [&](const Row& row, int step) {
    return table_.get() + (2 * size_t(row.ids[place(row, step)]) + direction) * gates * width_;
  };
  for (size_t row = 0; row < rows; row++) coming[row] = folded(part.rows[row], 0);
  size_t going = rows;
  for (int step = 0; step < part.rows[0].length; step++) {
    if (stop && stop->load(std::memory_order_relaxed)) throw Stopped();
    while (part.rows[going - 1].length <= step) going--;
    std::swap(now, coming);
    for (size_t row = 0; row < going; row++) {
      const Row& own = part.rows[row];
      coming[row] = step + 1 < own.length ? folded(own, step + 1) : now[row];
      const size_t piece = part.pooling == Pooling::pieces ? place(own, step) : 0;
      out[row] = part.states[row] + piece * 2 * width_ + direction * width_;
    }
    kernels_.step(weights, {int(going), step == 0, part.pooling == Pooling::max, now.data(), coming.data(), from.get(),
                            to.get(), cells.get(), out.data(), halves.get()});
    std::swap(from, to);
  }
}

void Tower::run(std::span<const Row> rows, Pooling pooling, float* states, Pool& pool, Stop stop) const {
  const size_t count = rows.size();
  std::vector<size_t> order(count), begins(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rows[a].length > rows[b].length; });
  for (size_t row = 0, begin = 0; row < count; row++) {
    begins[row] = begin;
    begin += pooling == Pooling::pieces ? rows[row].length : 1;
  }
  // Two directions for each part, so half as many parts as threads keep all busy.
  // A tile has room for 16 rows and takes as long with fewer.
  const size_t worth = kernels_.tiles ? std::max(count / 16, size_t{1}) : count;
  const size_t wanted = std::min(worth, size_t(pool.threads() + 1) / 2);
  const size_t parts = std::max(wanted, (count + most_rows - 1) / most_rows);
  std::vector<Part> each(parts);
  for (size_t row = 0; row < count; row++) {  // dealt out, so that each has long and short ones
    Part& part = each[row % parts];
    part.pooling = pooling;
    part.rows.push_back(rows[order[row]]);
    part.states.push_back(states + begins[order[row]] * 2 * width_);
  }
  if (pooling == Pooling::max) std::fill_n(states, count * 2 * width_, -FLT_MAX);
  pool.run(int(2 * parts), [&](int item) { read(each[item / 2], item % 2, stop); });
}

}  // namespace understudy
