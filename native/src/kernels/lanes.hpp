// Vectors of LANES numbers, by GCC's vector extension, and the few operations that it does not spell.
//
// Included by each of the kernels' files, which are compiled for different processors: all is in an unnamed namespace and
// nothing of the standard library is used, lest the linker share a function among files that not every machine can run.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

using F = float __attribute__((vector_size(4 * LANES)));
using I = int32_t __attribute__((vector_size(4 * LANES)));
using U = uint32_t __attribute__((vector_size(4 * LANES)));
using Pairs = int16_t __attribute__((vector_size(4 * LANES)));
using Shorts = int16_t __attribute__((vector_size(2 * LANES)));
using Halves = uint16_t __attribute__((vector_size(2 * LANES)));
using Bytes = int8_t __attribute__((vector_size(LANES)));

template <class V>
inline V load(const void* from) {
  V value;
  memcpy(&value, from, sizeof value);
  return value;
}

template <class V>
inline void store(void* to, V value) {
  memcpy(to, &value, sizeof value);
}

inline F all(float value) { return value - F{}; }

// Two states beside each other, in every lane.
inline Pairs all_pairs(const int16_t* states) {
  int32_t both;
  memcpy(&both, states, sizeof both);
#if LANES == 8 && defined(__AVX2__)
  return (Pairs)_mm256_set1_epi32(both);
#else
  return (Pairs)(both - I{});
#endif
}

// sum + the products of two pairs in each lane. Whoever made the weights saw to it that no sum overflows.
inline I dot(I sum, Pairs weights, Pairs states) {
#if LANES == 16 && defined(__AVX512VNNI__)
  return (I)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)weights, (__m512i)states);
#elif LANES == 8 && defined(__AVX2__)
  return sum + (I)_mm256_madd_epi16((__m256i)weights, (__m256i)states);
#elif defined(__SSE2__)
  I products;
  for (int part = 0; part < LANES / 4; part++) {
    const char* left = (const char*)&weights + 16 * part;
    const char* right = (const char*)&states + 16 * part;
    store((char*)&products + 16 * part, _mm_madd_epi16(load<__m128i>(left), load<__m128i>(right)));
  }
  return sum + products;
#else
  const U w = (U)weights, s = (U)states;
  const U low = (U)((I)(w << 16) >> 16) * (U)((I)(s << 16) >> 16);
  const U high = (U)((I)w >> 16) * (U)((I)s >> 16);
  return (I)((U)sum + low + high);
#endif
}

// Halves that are finite -> floats, exactly.
inline F widened(const uint16_t* from) {
#if LANES == 16 && defined(__AVX512F__)
  return (F)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif LANES == 8 && defined(__F16C__)
  return (F)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#else
  const U bits = __builtin_convertvector(load<Halves>(from), U);
  const F size = (F)((bits & 0x7fff) << 13) * 0x1p112f;  // the exponent's bias: 127 - 15
  return (F)((U)size | (bits & 0x8000) << 16);
#endif
}

// One float -> the half next to it, an even one if two are; what is too large becomes the largest.
inline uint16_t narrowed(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits >= 0x477fe000) return (uint16_t)(sign | 0x7bff);
  if (bits < 0x38800000) {  // below the least normal half: let an addition round at the right place
    float size;
    memcpy(&size, &bits, sizeof size);
    size += 0.5f;
    memcpy(&bits, &size, sizeof bits);
    return (uint16_t)(sign | (bits - 0x3f000000));
  }
  bits += 0xfff + (bits >> 13 & 1);
  return (uint16_t)(sign | ((bits - 0x38000000) >> 13));
}

inline F least(F left, F right) {
#if LANES == 16 && defined(__AVX512F__)
  return (F)_mm512_min_ps((__m512)left, (__m512)right);
#elif LANES == 8 && defined(__AVX__)
  return (F)_mm256_min_ps((__m256)left, (__m256)right);
#else
  return left < right ? left : right;
#endif
}

inline F greatest(F left, F right) {
#if LANES == 16 && defined(__AVX512F__)
  return (F)_mm512_max_ps((__m512)left, (__m512)right);
#elif LANES == 8 && defined(__AVX__)
  return (F)_mm256_max_ps((__m256)left, (__m256)right);
#else
  return left > right ? left : right;
#endif
}

// The nearest whole number of |value| < 2^22, an even one if two are: adding 3 * 2^22 leaves no bits for fractions.
constexpr float no_fractions = 12582912.0f;

inline I rounded(F value) { return (I)(value + no_fractions) - 0x4b400000; }

// Whole numbers of 16 bits, from such of 32.
inline void store_short(int16_t* to, I value) {
#if LANES == 8 && defined(__AVX2__)
  const __m256i both = _mm256_packs_epi32((__m256i)value, (__m256i)value);
  _mm_storeu_si128((__m128i*)to, _mm256_castsi256_si128(_mm256_permute4x64_epi64(both, 8)));
#else
  store(to, __builtin_convertvector(value, Shorts));
#endif
}

}  // namespace
