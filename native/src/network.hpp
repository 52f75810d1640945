// A whole student: texts of token ids -> logits.
#pragma once

#include <span>
#include <vector>

#include "layers.hpp"
#include "tower.hpp"

namespace understudy {

struct Plan {
  LstmWeights lstm;
  Pooling pooling;
  std::vector<LayerWeights> each;  // of each text by itself
  bool compare;                    // two texts: their vectors beside each other, their product and distance
  std::vector<LayerWeights> last;
};

// (B, T) ids and (B) lengths, of which each is from 1 to T.
struct Texts {
  const int64_t* ids;
  const int64_t* lengths;
  size_t rows, width;
};

class Network {
 public:
  // Throws std::invalid_argument for weights that don't fit together.
  Network(const Kernels& kernels, const Plan& plan, int threads);

  const char* isa() const { return kernels_.name; }
  size_t texts() const { return compare_ ? 2 : 1; }
  bool of_pieces() const { return pooling_ == Pooling::pieces; }
  size_t labels() const { return labels_; }

  // Logits (B, L), of pieces (B, T, L) with zeros for the padding. Throws std::invalid_argument for lengths and ids that
  // are none of this network's, and Stopped.
  void run(std::span<const Texts> texts, float* logits, Stop stop) const;

 private:
  struct Checked;
  Checked checked(std::span<const Texts> texts) const;
  void answer(const float* states, const std::vector<float*>& out) const;

  const Kernels& kernels_;
  mutable Pool pool_;
  Tower tower_;
  Pooling pooling_;
  std::vector<Layer> each_, last_;
  bool compare_;
  size_t labels_;
};

}  // namespace understudy
