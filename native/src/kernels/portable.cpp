// For any processor: what the compiler makes of the vectors.
#define LANES 8
#define TOGETHER 2
#include "dense.hpp"
#include "steps.hpp"

namespace understudy {
extern const Kernels portable_kernels;
const Kernels portable_kernels = {"portable", LANES, step_all, dense_all, fold_all, squash_all};
}  // namespace understudy
