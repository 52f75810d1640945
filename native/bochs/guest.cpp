// The kernels under test beside the emulated ones, bit for bit, on a processor without an operating system: see run.py.
#include <cpuid.h>

#include <initializer_list>

#include "amx_instructions.hpp"
#include "kernels.hpp"

namespace understudy {

extern const Kernels emulated_kernels, KERNELS;

namespace {

struct Report {
  uint64_t comparisons, differing;
  uint32_t processor[12];  // its name
}* report;

void count(bool equal) {
  report->comparisons++;
  report->differing += !equal;
}

constexpr size_t room = 16 << 20;
alignas(64) char memory[room];
size_t taken;

// Zeros. They begin where their type may begin, and never where a whole vector would like to.
template <class T>
T* array(size_t size) {
  const size_t begin = (taken + 63) / 64 * 64 + sizeof(T);
  taken = begin + size * sizeof(T);
  if (taken > room) __builtin_trap();
  return (T*)memset(memory + begin, 0, size * sizeof(T));
}

struct Random {
  uint64_t state = 1;

  uint32_t below(uint32_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return uint32_t(state >> 33) % bound;
  }
  float within(float bound) { return (int(below(20001)) - 10000) * 1e-4f * bound; }
} random;

float* floats(size_t size, float bound) {
  float* values = array<float>(size);
  for (size_t place = 0; place < size; place++) values[place] = random.within(bound);
  return values;
}

// Has both kernels write so many values.
template <class T, class Work>
void compare(size_t size, Work work) {
  T *wanted = array<T>(size), *found = array<T>(size);
  work(emulated_kernels, wanted);
  work(KERNELS, found);
  count(!memcmp(wanted, found, size * sizeof(T)));
}

void squash() {
  constexpr size_t size = 1024;
  float* x = floats(size, 40);
  const float odd[] = {__builtin_inff(), -__builtin_inff(), __builtin_nanf(""), 0, -0.0f, 3e38f, 1e-42f, -1e-3f};
  memcpy(x, odd, sizeof odd);
  compare<float>(2 * size, [&](const Kernels& kernels, float* to) { kernels.squash(x, to, to + size, size); });
}

void dense(int rows, int blocks) {
  constexpr int inputs = 37, x_stride = inputs + 3;
  const size_t lanes = KERNELS.lanes, y_stride = (blocks + 1) * lanes;
  const Dense layer{floats(blocks * inputs * lanes, 1), floats(blocks * lanes, 1), blocks, inputs};
  const float* x = floats(rows * x_stride, 3);
  compare<float>(rows * y_stride, [&](const Kernels& kernels, float* y) {
    kernels.dense(layer, x, y, rows, x_stride, y_stride);
  });
}

// Of rows with scales that make halves of all sizes: none, less than normal, normal, too large.
void fold() {
  constexpr int inputs = 19, blocks = 8;
  constexpr size_t tokens = 21;
  const size_t columns = blocks * KERNELS.lanes;
  const Dense product{floats(inputs * columns, 1), floats(columns, 1e-5f), blocks, inputs};
  int8_t* values = array<int8_t>(tokens * inputs);
  float* scales = array<float>(tokens);
  const float sizes[] = {0, 1e-8f, 1e-6f, 0.01f, 300};
  for (size_t place = 0; place < tokens * inputs; place++) values[place] = int8_t(random.below(256));
  for (size_t token = 0; token < tokens; token++) scales[token] = sizes[token % 5];
  compare<uint16_t>(tokens * columns, [&](const Kernels& kernels, uint16_t* table) {
    kernels.fold({product, values, scales, table}, 0, tokens);
  });
}

// Of units of which the first two have the largest weights that there are, so that sums come to their bounds.
Recurrent direction(size_t hidden) {
  const size_t lanes = KERNELS.lanes, blocks = (hidden + lanes - 1) / lanes, pairs = (hidden + 1) / 2;
  const int bound = INT32_MAX / int(state_unit) / int(hidden) - 1, most = bound < INT16_MAX ? bound : INT16_MAX;
  int16_t* weights = array<int16_t>(blocks * pairs * gates * lanes * 2);
  uint8_t* tiles = array<uint8_t>(blocks * gates * spans(pairs) * 2 * tile_bytes);
  float* scales = array<float>(blocks * gates * lanes);
  for (size_t place = 0; place < blocks * gates * lanes; place++) scales[place] = -1e-9f * float(1 + random.below(9));
  for (size_t unit = 0; unit < hidden; unit++)
    for (size_t gate = 0; gate < gates; gate++)
      for (size_t from = 0; from < hidden; from++) {
        const int value = unit == 0 ? most : unit == 1 ? -most : int(random.below(2 * most + 1)) - most;
        const size_t block = unit / lanes, lane = unit % lanes;
        weights[(((block * pairs + from / 2) * gates + gate) * lanes + lane) * 2 + from % 2] = int16_t(value);
        uint8_t* tile = tiles + ((block * gates + gate) * spans(pairs) + from / tile_units) * 2 * tile_bytes;
        const size_t place = (from % tile_units / 4 * lanes + lane) * 4 + from % 4;
        tile[place] = uint8_t(value >> 8);
        tile[tile_bytes + place] = uint8_t(value);
      }
  return {weights, tiles, scales, int(blocks), int(pairs)};
}

// Rows that end two by two. They begin with a first step, or with states of which two rows have the largest there are.
void steps(const Recurrent& weights, size_t hidden, int rows, bool first) {
  constexpr int tokens = 7;
  const size_t width = weights.blocks * KERNELS.lanes, size = rows * width, token = gates * width;
  uint16_t* table = array<uint16_t>(tokens * token);
  for (size_t place = 0; place < tokens * token; place++)  // halves of all sizes, most of them below 128
    table[place] = uint16_t(random.below(2) << 15 | random.below(place % 5 ? 0x5800 : 0x7c00));
  int16_t* states = array<int16_t>(size);
  for (size_t place = 0; place < size; place++)
    if (place % width < hidden)
      states[place] = int16_t(place < 2 * width ? (place < width ? 8192 : -8192) : int(random.below(16385)) - 8192);
  compare<float>(3 * size, [&](const Kernels& kernels, float* found) {
    float *cells = found, *out = cells + size;
    int16_t *from = (int16_t*)(out + size), *to = from + size;
    uint8_t* halves = array<uint8_t>(2 * rows * spans(weights.pairs) * tile_units);
    const uint16_t** inputs = array<const uint16_t*>(rows);
    float** places = array<float*>(rows);
    memcpy(from, states, size * sizeof *from);
    for (int row = 0; row < rows; row++) places[row] = out + row * width;
    for (int step = 0, going = rows; step < 3; step++, going = going > 2 ? going - 2 : going) {
      for (int row = 0; row < going; row++) inputs[row] = table + (row + 3 * step) % tokens * token;
      kernels.step(weights, {going, first && step == 0, first, inputs, inputs, from, to, cells, places, halves});
      int16_t* const before = from;
      from = to;
      to = before;
    }
  });
}

void compare_all() {
  uint8_t before[64] = {1}, after[64];  // somebody else's set-up, with one tile of 3 rows of 8 bytes
  before[30] = 8;
  before[55] = 3;
  load_set_up(before);
  count(agree(KERNELS));
  squash();
  for (const int rows : {1, 7, 8, 9, 17})
    for (const int blocks : {1, 3}) dense(rows, blocks);
  fold();
  for (const size_t hidden : {1, 7, 16, 33, 65, 130}) {
    taken = 0;
    const Recurrent weights = direction(hidden);
    const size_t begin = taken;
    for (const int rows : {1, 3, 4, 6, 16, 17, 19}) {
      taken = begin;
      steps(weights, hidden, rows, (hidden + rows) % 2);
    }
  }
  store_set_up(after);
  count(!memcmp(before, after, sizeof after));
}

}  // namespace
}  // namespace understudy

// All that the code above and vectors ask of a system. Memory is never given back.
struct alignas(16) Piece {
  char bytes[16];
};
void* operator new(size_t size) { return understudy::array<Piece>((size + 15) / 16); }
void* operator new[](size_t size) { return operator new(size); }
void operator delete(void*) noexcept {}
void operator delete(void*, size_t) noexcept {}
void operator delete[](void*) noexcept {}
void operator delete[](void*, size_t) noexcept {}

extern "C" {

void* memcpy(void* to, const void* from, size_t size) {
  void* place = to;
  asm volatile("rep movsb" : "+D"(place), "+S"(from), "+c"(size)::"memory");
  return to;
}

void* memmove(void* to, const void* from, size_t size) {
  if (to <= from) return memcpy(to, from, size);
  while (size--) ((volatile char*)to)[size] = ((const char*)from)[size];
  return to;
}

void* memset(void* to, int value, size_t size) {
  void* place = to;
  asm volatile("rep stosb" : "+D"(place), "+c"(size) : "a"(value) : "memory");
  return to;
}

int memcmp(const void* one, const void* other, size_t size) {
  const uint8_t *left = (const uint8_t*)one, *right = (const uint8_t*)other;
  for (; size; size--, left++, right++)
    if (*left != *right) return *left - *right;
  return 0;
}

[[noreturn]] void _start(understudy::Report* report) {
  unsigned* name = report->processor;
  for (unsigned part = 0; part < 3; part++, name += 4) __cpuid(0x80000002 + part, name[0], name[1], name[2], name[3]);
  understudy::report = report;
  understudy::compare_all();
  for (;;) asm volatile("hlt");
}

}  // extern "C"
