// Numbers of the compiled layers: bf16, float or double in memory, float or double in arithmetic.

#pragma once

#include <cstdint>

struct bf16 {
  uint16_t bits;
};

template <class T> struct Precision { using Wide = T; };
template <> struct Precision<bf16> { using Wide = float; };
template <class T> using Wide = typename Precision<T>::Wide;

inline double widen(double value) { return value; }
inline float widen(float value) { return value; }
inline float widen(bf16 value) { return __builtin_bit_cast(float, uint32_t(value.bits) << 16); }
inline void put(double value, double &target) { target = value; }
inline void put(float value, float &target) { target = value; }
inline void put(float value, bf16 &target) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);  // round to nearest, ties to even
  target.bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// A product and a sum, rounded alike wherever the compiler meets them: backward passes find the forward's signs again.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMAF)
inline float fma_(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fma_(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
inline float fma_(float a, float b, float c) { return a * b + c; }
inline double fma_(double a, double b, double c) { return a * b + c; }
#endif

// Before a loop whose turns do not depend on each other, so that it becomes one of vectors.
#if defined(__clang__)
#define NO_ALIASES _Pragma("clang loop vectorize(assume_safety)")
#else
#define NO_ALIASES _Pragma("GCC ivdep")
#endif
