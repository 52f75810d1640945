// The arithmetic that processors differ in, as a table of functions: one table for each set of instructions.
//
// All tables give the same bits: sums of products are whole numbers, and everything else is single additions,
// multiplications and divisions, each rounded as IEEE 754 says, in an order that hangs on nothing else.
#pragma once

#include <cstddef>
#include <cstdint>

namespace understudy {

constexpr int gates = 4;           // in ONNX's order: input, output, forget, cell
constexpr float state_unit = 8192;  // a state h, |h| <= 1, is kept as round(h * state_unit) in 16 bits

// A tile has 16 columns of so many units of h; how they lie in it: kernels/tiles.hpp.
constexpr size_t tile_units = 64, tile_bytes = 1024;

// How many tiles it takes for all units of h. Static: kernels for several processors must not share its code.
static constexpr size_t spans(size_t pairs) { return (2 * pairs + tile_units - 1) / tile_units; }

// One direction's recurrent weights, in blocks of `lanes` units whose four gates lie together.
struct Recurrent {
  const int16_t* weights;  // (blocks, pairs, gates, lanes, 2): of two units of h each
  const uint8_t* tiles;    // the same in bytes, as kernels/tiles.hpp says; null for kernels without tiles
  const float* scales;     // (blocks, gates, lanes): what a whole sum of products is worth
  int blocks;
  int pairs;  // of units of h
};

// A step in time of some rows: row r has read tokens up to here and goes on with the one at inputs[r].
struct Step {
  int rows;
  bool first;                     // all states are zero
  bool maximum;                   // of out and the new states; else the new states alone
  const uint16_t* const* inputs;  // of each row (blocks, gates, lanes) halves: embedding x W + b, in cell.hpp's units
  const uint16_t* const* coming;  // the same of the step after: fetched ahead
  const int16_t* from;            // (rows, blocks * lanes) states before
  int16_t* to;                    // (rows, blocks * lanes) states after; not the same memory
  float* cells;                   // (rows, blocks * lanes)
  float* const* out;              // of each row (blocks * lanes)
  uint8_t* halves;                // room for the states in bytes, zeros: kernels/tiles.hpp; null for kernels without tiles
};

// y = x W + b, for columns in blocks of `lanes`.
struct Dense {
  const float* weights;  // (blocks, inputs, lanes)
  const float* bias;     // (blocks, lanes)
  int blocks;
  int inputs;
};

// Rows of the embedding table -> rows of the folded one.
struct Fold {
  Dense product;           // from embeddings to all gates of both directions
  const int8_t* values;    // (tokens, inputs)
  const float* scales;     // (tokens)
  uint16_t* table;         // (tokens, blocks * lanes) halves
};

struct Kernels {
  const char* name;
  int lanes;
  bool tiles;  // wants Recurrent's
  void (*step)(const Recurrent&, const Step&);
  void (*dense)(const Dense&, const float* x, float* y, int rows, size_t x_stride, size_t y_stride);
  void (*fold)(const Fold&, size_t begin, size_t end);
  void (*squash)(const float* x, float* sigmoid, float* tanh, size_t size);  // for tests; size in whole lanes
};

// Do a few steps of these kernels come to the same bits as those in plain C++?
bool agree(const Kernels& kernels);

// The quickest that this processor has, or the one that is asked for by name; null if there is none such here.
const Kernels* choose_kernels(const char* name);

}  // namespace understudy
