// Which kernels this processor can run.
#include <cstring>

#include "kernels.hpp"

namespace understudy {

extern const Kernels portable_kernels;
#if defined(UNDERSTUDY_X86)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;

namespace {

// GCC asks the operating system too, whether it keeps the wide registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace
#endif

const Kernels* choose_kernels(const char* name) {
  const auto wanted = [name](const Kernels& kernels) { return !name || !std::strcmp(name, kernels.name); };
#if defined(UNDERSTUDY_X86)
  if (wanted(avx512_kernels) && has_avx512()) return &avx512_kernels;
  if (wanted(avx2_kernels) && has_avx2()) return &avx2_kernels;
#endif
  return wanted(portable_kernels) ? &portable_kernels : nullptr;
}

}  // namespace understudy
