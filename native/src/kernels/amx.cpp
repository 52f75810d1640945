// For AMX with AVX-512: tiles for the products, vectors for the rest.
#define LANES 16
#define TOGETHER 4
#include "dense.hpp"
#include "tiles.hpp"

namespace {

// The processor's unit, set up for tiles of so many rows. Each thread has a set-up of its own, and libraries rely on
// finding theirs again (ONNX Runtime's does), so what was there before is put back.
class Amx {
 public:
  Amx(int rows, size_t stride) : stride_(stride) {
    asm volatile("sttilecfg %0" : "=m"(before_));
    SetUp own = {};
    own.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
      own.bytes[tile] = 64;
      own.rows[tile] = (uint8_t)(tile < 6 ? rows : tile_rows);
    }
    load(own);
  }
  ~Amx() { load(before_); }
  Amx(const Amx&) = delete;
  Amx& operator=(const Amx&) = delete;

  // Tiles 0 to 3 hold sums, 4 and 5 states, 6 and 7 weights.
  void multiply(const uint8_t* high, const uint8_t* low, const uint8_t* weights, Products& products) const {
    asm volatile("" ::: "memory");  // what the tiles are loaded from is written by now: the intrinsics do not say that they read
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t unit = 0; unit < stride_; unit += tile_units, weights += 2 * tile_bytes) {
      _tile_loadd(4, high + unit, stride_);
      _tile_loadd(6, weights, 64);
      _tile_dpbssd(0, 4, 6);
      _tile_loadd(7, weights + tile_bytes, 64);
      _tile_dpbsud(1, 4, 7);
      _tile_loadd(5, low + unit, stride_);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbuud(3, 5, 7);
    }
    _tile_stored(0, products.sums[0], 64);
    _tile_stored(1, products.sums[1], 64);
    _tile_stored(2, products.sums[2], 64);
    _tile_stored(3, products.sums[3], 64);
  }

 private:
  struct alignas(64) SetUp {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  };

  // Not the intrinsic: GCC's, up to version 13, tells the compiler of the first 8 bytes alone, so that it may leave the
  // others unwritten.
  static void load(const SetUp& set_up) { asm volatile("ldtilecfg %0" ::"m"(set_up) : "memory"); }

  size_t stride_;
  SetUp before_;
};

}  // namespace

namespace understudy {
extern const Kernels amx_kernels;
const Kernels amx_kernels = {"amx", LANES, true, step_tiles<Amx>, dense_all, fold_all, squash_all};
}  // namespace understudy
