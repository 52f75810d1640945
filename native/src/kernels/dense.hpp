// Dense layers, and the folding of embeddings with an LSTM's input weights. Each sum begins with the bias and goes up
// the inputs one by one, whatever runs beside it.
#pragma once

#include "../kernels.hpp"
#include "cell.hpp"

namespace {

using understudy::Dense;
using understudy::Fold;

// ROWS rows times one block of columns. `at` gives a row's input as a float.
template <int ROWS, class At>
inline void columns(const Dense& layer, int block, At at, F* sums) {
  const float* weights = layer.weights + (size_t)block * layer.inputs * LANES;
  F sum[ROWS];
  for (int row = 0; row < ROWS; row++) sum[row] = load<F>(layer.bias + (size_t)block * LANES);
  for (int input = 0; input < layer.inputs; input++, weights += LANES) {
    const F weight = load<F>(weights);
    for (int row = 0; row < ROWS; row++) sum[row] += weight * at(row, input);
  }
  for (int row = 0; row < ROWS; row++) sums[row] = sum[row];
}

template <int ROWS>
inline void dense_rows(const Dense& layer, const float* x, float* y, size_t x_stride, size_t y_stride) {
  for (int block = 0; block < layer.blocks; block++) {
    F sums[ROWS];
    columns<ROWS>(layer, block, [&](int row, int input) { return x[row * x_stride + input]; }, sums);
    for (int row = 0; row < ROWS; row++) store(y + row * y_stride + (size_t)block * LANES, sums[row]);
  }
}

void dense_all(const Dense& layer, const float* x, float* y, int rows, size_t x_stride, size_t y_stride) {
  int row = 0;
  for (; row + 8 <= rows; row += 8) dense_rows<8>(layer, x + row * x_stride, y + row * y_stride, x_stride, y_stride);
  for (; row < rows; row++) dense_rows<1>(layer, x + row * x_stride, y + row * y_stride, x_stride, y_stride);
}

// ONNX computes float(value) * scale for each element first: so do we.
template <int ROWS>
inline void fold_rows(const Fold& fold, size_t token, float* embeddings) {
  const int inputs = fold.product.inputs;
  for (int row = 0; row < ROWS; row++)
    for (int input = 0; input < inputs; input++)
      embeddings[row * inputs + input] = (float)fold.values[(token + row) * inputs + input] * fold.scales[token + row];
  const size_t width = (size_t)fold.product.blocks * LANES;
  for (int block = 0; block < fold.product.blocks; block++) {
    F sums[ROWS];
    columns<ROWS>(fold.product, block, [&](int row, int input) { return embeddings[row * inputs + input]; }, sums);
    for (int row = 0; row < ROWS; row++) {
      uint16_t* to = fold.table + (token + row) * width + (size_t)block * LANES;
      for (int lane = 0; lane < LANES; lane++) to[lane] = narrowed(sums[row][lane]);
    }
  }
}

void fold_all(const Fold& fold, size_t begin, size_t end) {
  float* embeddings = new float[8 * (size_t)fold.product.inputs];
  for (; begin + 8 <= end; begin += 8) fold_rows<8>(fold, begin, embeddings);
  for (; begin < end; begin++) fold_rows<1>(fold, begin, embeddings);
  delete[] embeddings;
}

void squash_all(const float* x, float* sigmoid, float* tanh, size_t size) {
  for (size_t place = 0; place < size; place += LANES) {
    const F value = load<F>(x + place);
    store(sigmoid + place, 1.0f / (power(value * sigmoid_unit) + 1.0f));
    const F b = power(value * tanh_unit);
    store(tanh + place, (1.0f - b) / (b + 1.0f));
  }
}

}  // namespace
