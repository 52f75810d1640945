// Which kernels this processor can run.
#include <cstring>

#include "kernels.hpp"

namespace understudy {

extern const Kernels portable_kernels;
#if defined(UNDERSTUDY_X86)
extern const Kernels avx2_kernels;
#endif

const Kernels* choose_kernels(const char* name) {
  const auto wanted = [name](const Kernels& kernels) { return !name || !std::strcmp(name, kernels.name); };
#if defined(UNDERSTUDY_X86)
  // GCC asks the operating system too, whether it keeps the wide registers.
  if (wanted(avx2_kernels) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return &avx2_kernels;
#endif
  return wanted(portable_kernels) ? &portable_kernels : nullptr;
}

}  // namespace understudy
