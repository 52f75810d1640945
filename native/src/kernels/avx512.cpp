// For AVX-512 with VNNI, whose one instruction multiplies pairs and adds them. Sixteen sums, four states and a weight fit
// its thirty-two registers.
#define LANES 16
#define TOGETHER 4
#include "dense.hpp"
#include "steps.hpp"

namespace understudy {
extern const Kernels avx512_kernels;
const Kernels avx512_kernels = {"avx512", LANES, false, step_all, dense_all, fold_all, squash_all};
}  // namespace understudy
