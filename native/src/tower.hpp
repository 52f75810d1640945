// The folded embedding table and the BiLSTM over it: rows of token ids -> states.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"
#include "pool.hpp"

namespace understudy {

// As the ONNX graph has them: gates in the order input, output, forget, cell; forwards before backwards.
struct LstmWeights {
  size_t vocabulary, embedding, hidden;
  const int8_t* values;    // (V, E)
  const float* scales;     // (V)
  const float* input;      // (2, 4H, E)
  const float* recurrent;  // (2, 4H, H)
  const float* bias;       // (2, 8H)
};

enum class Pooling { last, max, pieces };

struct Row {
  const int32_t* ids;
  int length;
};

using Stop = const std::atomic<uint8_t>*;  // another thread sets it to end a run; may be null

struct Stopped : std::runtime_error {
  Stopped() : std::runtime_error("the run was stopped") {}
};

class Tower {
 public:
  // Throws std::invalid_argument for weights that are no finite numbers.
  Tower(const Kernels& kernels, const LstmWeights& weights, Pool& pool);

  size_t vocabulary() const { return vocabulary_; }
  size_t hidden() const { return hidden_; }
  size_t width() const { return width_; }  // of one direction's states, filled up to whole vectors

  // States of each row, (2, width): of `pieces` of each token, row after row. Lengths and ids must have been checked.
  void run(std::span<const Row> rows, Pooling pooling, float* states, Pool& pool, Stop stop) const;

 private:
  struct Part;
  void fold(const LstmWeights& weights, Pool& pool);
  void pack(const LstmWeights& weights);
  size_t tiles_size() const;  // of one direction
  Recurrent recurrent(int direction) const;
  void read(const Part& part, int direction, Stop stop) const;

  const Kernels& kernels_;
  size_t vocabulary_, hidden_, width_;
  Array<uint16_t> table_;     // (V, 2, blocks, gates, lanes)
  Array<int16_t> recurrent_;  // (2, blocks, pairs, gates, lanes, 2)
  Array<uint8_t> tiles_;      // the same as kernels/tiles.hpp says, (2, …), for kernels with tiles
  Array<float> scales_;       // (2, blocks, gates, lanes)
};

}  // namespace understudy
