// Numbers as IEEE 754 has them, whatever the process asked its processor for.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace understudy {

// While it lives, this thread rounds to nearest and keeps subnormal numbers; then all is as it was. Libraries change that
// for threads that they start (torch.set_flush_denormal), and results must not hang on it.
class StandardArithmetic {
#if defined(__SSE__)
 public:
  StandardArithmetic() : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~StandardArithmetic() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
 public:
  StandardArithmetic() {}
#endif
 public:
  StandardArithmetic(const StandardArithmetic&) = delete;
  StandardArithmetic& operator=(const StandardArithmetic&) = delete;
};

}  // namespace understudy
