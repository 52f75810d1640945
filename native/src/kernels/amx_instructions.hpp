// AMX's instructions, a function for each; in plain C++: bochs/amx_instructions.hpp. In assembly, because GCC's intrinsics
// do not say all that they read, so that it might be written too late: those of tiles name nothing, and that of the set-up,
// up to version 13, 8 of its 64 bytes.
#pragma once

#include <stddef.h>

namespace {

inline void load_set_up(const void* from) { asm volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])from)); }
inline void store_set_up(void* to) { asm volatile("sttilecfg %0" : "=m"(*(char(*)[64])to)); }

template <int tile>
inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}

template <int tile>
inline void load_tile(const void* from, size_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
inline void store_tile(void* to, size_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
}

// sums += left x right, of bytes that are signed or unsigned: first the left ones'.
template <int sums, int left, int right>
inline void multiply_ss() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(left), "i"(right));
}

template <int sums, int left, int right>
inline void multiply_su() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(left), "i"(right));
}

template <int sums, int left, int right>
inline void multiply_us() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(left), "i"(right));
}

template <int sums, int left, int right>
inline void multiply_uu() {
  asm volatile("tdpbuud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(left), "i"(right));
}

}  // namespace
