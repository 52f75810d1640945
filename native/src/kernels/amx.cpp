// For AMX with AVX-512: tiles for the products, vectors for the rest.
#define LANES 16
#define TOGETHER 4
#include "amx_instructions.hpp"
#include "dense.hpp"
#include "tiles.hpp"

namespace {

// The processor's unit, set up for tiles of so many rows. Each thread has a set-up of its own, and libraries rely on
// finding theirs again (ONNX Runtime's does), so what was there before is put back.
class Amx {
 public:
  Amx(int rows, size_t stride) : stride_(stride) {
    store_set_up(&before_);
    SetUp own = {};
    own.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
      own.bytes[tile] = 64;
      own.rows[tile] = (uint8_t)(tile < 6 ? rows : tile_rows);
    }
    load_set_up(&own);
  }
  ~Amx() { load_set_up(&before_); }
  Amx(const Amx&) = delete;
  Amx& operator=(const Amx&) = delete;

  // Tiles 0 to 3 hold sums, 4 and 5 states, 6 and 7 weights.
  void multiply(const uint8_t* high, const uint8_t* low, const uint8_t* weights, Products& products) const {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    for (size_t unit = 0; unit < stride_; unit += tile_units, weights += 2 * tile_bytes) {
      load_tile<4>(high + unit, stride_);
      load_tile<6>(weights, 64);
      multiply_ss<0, 4, 6>();
      load_tile<7>(weights + tile_bytes, 64);
      multiply_su<1, 4, 7>();
      load_tile<5>(low + unit, stride_);
      multiply_us<2, 5, 6>();
      multiply_uu<3, 5, 7>();
    }
    store_tile<0>(products.sums[0], 64);
    store_tile<1>(products.sums[1], 64);
    store_tile<2>(products.sums[2], 64);
    store_tile<3>(products.sums[3], 64);
  }

 private:
  struct alignas(64) SetUp {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  };

  size_t stride_;
  SetUp before_;
};

}  // namespace

namespace understudy {
extern const Kernels amx_kernels;
const Kernels amx_kernels = {"amx", LANES, true, step_tiles<Amx>, dense_all, fold_all, squash_all};
}  // namespace understudy
