// Which kernels this processor can run. Each must first come to the same bits as plain C++, once in a process: a bundle's
// own proof has few and short texts, and not all code of kernels sees them.
#include <cstring>

#include "kernels.hpp"

#if defined(UNDERSTUDY_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace understudy {

extern const Kernels portable_kernels;
extern const Kernels emulated_kernels;
#if defined(UNDERSTUDY_X86)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#if defined(UNDERSTUDY_AMX)
extern const Kernels amx_kernels;
#endif

namespace {

// GCC asks the operating system too, whether it keeps the wide registers.
bool has_avx2() {
  static const bool found =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && agree(avx2_kernels);
  return found;
}

bool has_avx512() {
  static const bool found =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && agree(avx512_kernels);
  return found;
}

#if defined(UNDERSTUDY_AMX)
// Linux gives a process the tiles' registers only if it asks; one that is refused does without.
bool has_amx() {
  unsigned a, b, c, d;
  if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned tiles = 1u << 24, bytes = 1u << 25;
  constexpr int ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA of <asm/prctl.h>, since 5.16
  static const bool found =
      (d & tiles) && (d & bytes) && syscall(SYS_arch_prctl, ask, tile_data) == 0 && agree(amx_kernels);
  return found;
}
#endif

}  // namespace
#endif

const Kernels* choose_kernels(const char* name) {
  const auto wanted = [name](const Kernels& kernels) { return !name || !std::strcmp(name, kernels.name); };
#if defined(UNDERSTUDY_AMX)
  if (wanted(amx_kernels) && has_amx()) return &amx_kernels;
#endif
#if defined(UNDERSTUDY_X86)
  if (wanted(avx512_kernels) && has_avx512()) return &avx512_kernels;
  if (wanted(avx2_kernels) && has_avx2()) return &avx2_kernels;
#endif
  if (wanted(portable_kernels)) return &portable_kernels;
  return wanted(emulated_kernels) ? &emulated_kernels : nullptr;
}

}  // namespace understudy
