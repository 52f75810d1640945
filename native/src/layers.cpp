#include "layers.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace understudy {

namespace {

void require_finite(const float* values, size_t size) {
  if (!std::all_of(values, values + size, [](float value) { return std::isfinite(value); }))
    throw std::invalid_argument("a dense layer has weights that are not finite numbers");
}

float gelu(float x) { return x * (std::erf(x / 1.41421356237309505f) + 1.0f) * 0.5f; }  // in the graph's order

}  // namespace

Places compared(const Places& places) {
  Places four{{}, 4 * places.width};
  for (size_t part = 0; part < 4; part++)
    for (size_t place : places.of) four.of.push_back(part * places.width + place);
  return four;
}

Layer::Layer(const Kernels& kernels, const LayerWeights& weights, const Places& read)
    : kernels_(kernels), read_(read.width), activation_(weights.activation) {
  if (weights.inputs != read.of.size())
    throw std::invalid_argument("a dense layer reads " + std::to_string(weights.inputs) + " numbers and gets " +
                                std::to_string(read.of.size()));
  require_finite(weights.weight, weights.outputs * weights.inputs);
  require_finite(weights.bias, weights.outputs);
  const size_t lanes = kernels.lanes;
  written_ = {std::vector<size_t>(weights.outputs), (weights.outputs + lanes - 1) / lanes * lanes};
  std::iota(written_.of.begin(), written_.of.end(), size_t{0});
  weights_ = array<float>(written_.width * read_);
  bias_ = array<float>(written_.width);
  std::fill_n(weights_.get(), written_.width * read_, 0.0f);
  std::fill_n(bias_.get(), written_.width, 0.0f);
  for (size_t output = 0; output < weights.outputs; output++) {
    bias_[output] = weights.bias[output];
    for (size_t input = 0; input < weights.inputs; input++)
      weights_[(output / lanes * read_ + read.of[input]) * lanes + output % lanes] =
          weights.weight[output * weights.inputs + input];
  }
}

void Layer::run(const float* x, float* y, size_t rows) const {
  const int blocks = int(written_.width / kernels_.lanes);
  kernels_.dense({weights_.get(), bias_.get(), blocks, int(read_)}, x, y, int(rows), read_, written_.width);
  const size_t size = rows * written_.width;
  if (activation_ == Activation::relu) std::transform(y, y + size, y, [](float value) { return value > 0 ? value : 0; });
  if (activation_ == Activation::gelu) std::transform(y, y + size, y, gelu);
}

}  // namespace understudy
