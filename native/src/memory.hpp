// Arrays that begin at a border of caches, or of huge pages where they are large. Nothing in them is set.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace understudy {

constexpr size_t huge_page = size_t{1} << 21;
constexpr size_t cache_line = 64;

struct Freed {
  std::align_val_t border;
  void operator()(void* memory) const { ::operator delete(memory, border); }
};

template <class T>
using Array = std::unique_ptr<T[], Freed>;

template <class T>
Array<T> array(size_t size) {
  if (size > (size_t{1} << 40) / sizeof(T)) throw std::bad_alloc();
  const size_t bytes = size * sizeof(T);
  const std::align_val_t border{bytes < huge_page ? cache_line : huge_page};
  void* memory = ::operator new(bytes ? bytes : 1, border);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // The folded table is read at random: with pages of 4 KiB each token would miss the processor's table of pages.
  if (bytes >= huge_page) madvise(memory, bytes & ~(huge_page - 1), MADV_HUGEPAGE);
#endif
  return Array<T>(static_cast<T*>(memory), Freed{border});
}

}  // namespace understudy
