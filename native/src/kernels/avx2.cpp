// For x86-64-v3: AVX2 and F16C. Eight sums, four weights, two states and a product fill its sixteen registers.
#define LANES 8
#define TOGETHER 2
#include "dense.hpp"
#include "steps.hpp"

namespace understudy {
extern const Kernels avx2_kernels;
const Kernels avx2_kernels = {"avx2", LANES, false, step_all, dense_all, fold_all, squash_all};
}  // namespace understudy
