// For any processor: vectors of 128 bits, which nearly all of them have (SSE2, NEON), and else what the compiler makes.
#define LANES 4
#define TOGETHER 2
#include "dense.hpp"
#include "steps.hpp"

namespace understudy {
extern const Kernels portable_kernels;
const Kernels portable_kernels = {"portable", LANES, false, step_all, dense_all, fold_all, squash_all};
}  // namespace understudy
