// Dense layers with what comes after them.
#pragma once

#include <vector>

#include "kernels.hpp"
#include "memory.hpp"

namespace understudy {

enum class Activation { none, relu, gelu };

struct LayerWeights {
  const float* weight;  // (outputs, inputs)
  const float* bias;    // (outputs)
  size_t outputs, inputs;
  Activation activation;
};

// Where each number of a vector stands in memory, which is filled up with zeros to whole vectors of the processor's.
struct Places {
  std::vector<size_t> of;
  size_t width;
};

// A vector beside another, their product and the distance between them.
Places compared(const Places& places);

class Layer {
 public:
  // Throws std::invalid_argument if the weights don't fit what they read, or are no finite numbers.
  Layer(const Kernels& kernels, const LayerWeights& weights, const Places& read);

  const Places& written() const { return written_; }
  void run(const float* x, float* y, size_t rows) const;  // (rows, width read) -> (rows, width written)

 private:
  const Kernels& kernels_;
  size_t read_;
  Places written_;
  Activation activation_;
  Array<float> weights_, bias_;
};

}  // namespace understudy
