// What the library in bochscpu-python's wheel wants changed; run.py puts these names before its own.
#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

class BX_CPU_C;
class bx_cpuid_t;

// It always makes a Cannon Lake, which has no VNNI. The other one's name is looked up late: this file is loaded first.
bx_cpuid_t* create_corei3_cnl_cpuid(BX_CPU_C* processor) {
  void* create = dlsym(RTLD_DEFAULT, "_Z28create_sapphire_rapids_cpuidP8BX_CPU_C");
  return ((bx_cpuid_t * (*)(BX_CPU_C*)) create)(processor);
}

// It was linked with glibc 2.38, and its wheel claims 2.28.
#if !__GLIBC_PREREQ(2, 38)
extern "C" unsigned long long __isoc23_strtoull(const char* text, char** end, int base) {
  return strtoull(text, end, base);
}

extern "C" int __isoc23_sscanf(const char* text, const char* format, ...) {
  va_list places;
  va_start(places, format);
  const int found = vsscanf(text, format, places);
  va_end(places);
  return found;
}
#endif
