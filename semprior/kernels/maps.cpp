// The gradients of two operations on channels-last maps for which torch takes slow paths: parts of the channels as maps
// of their own, and bilinear interpolation with aligned corners.
//
// Built by build.py with the machine's own compiler; maps.py is the other side.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "numbers.h"

namespace {

constexpr int STEP = 16;  // numbers that one turn of an inner loop takes

// Where each of `many` places lies among `few`: the lower neighbour, and the weight of the upper one.
template <class W> struct Places {
  std::vector<int64_t> lower;
  std::vector<W> upper_weight;
  Places(int64_t few, int64_t many) : lower(many), upper_weight(many) {
    const W scale = many > 1 ? W(few - 1) / W(many - 1) : W(0);
    for (int64_t i = 0; i < many; ++i) {
      const W real = scale * W(i);
      lower[i] = std::min(int64_t(real), few - 1);
      upper_weight[i] = lower[i] < few - 1 ? std::min(std::max(real - W(lower[i]), W(0)), W(1)) : W(0);
    }
  }
  W weight(int64_t place, int64_t of) const {  // of one of the few in one of the many
    return lower[place] == of ? 1 - upper_weight[place] : lower[place] + 1 == of ? upper_weight[place] : W(0);
  }
};

// g (B, H, W, C) to gx (B, h, w, C)
template <class T>
void interpolation_backward(const T *g, int64_t images, int64_t height, int64_t width, int64_t channels,
                            int64_t small_height, int64_t small_width, int threads, T *gx) {
  using W = Wide<T>;
  const Places<W> rows(small_height, height), columns(small_width, width);
  const int64_t line = width * channels;
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, images * small_height))) schedule(static)
  for (int64_t task = 0; task < images * small_height; ++task) {
    const int64_t row = task % small_height;
    std::vector<W> sum(line, W(0)), total(channels);
    const auto first = std::lower_bound(rows.lower.begin(), rows.lower.end(), row - 1) - rows.lower.begin();
    for (int64_t r = first; r < height && rows.lower[r] <= row; ++r) {
      const W weight = rows.weight(r, row);
      const T *from = g + (task / small_height * height + r) * line;
      W *to = sum.data();
      NO_ALIASES for (int64_t i = 0; i < line; ++i) to[i] = fma_(weight, widen(from[i]), to[i]);
    }
    int64_t c = 0;
    for (int64_t column = 0; column < small_width; ++column) {
      while (c < width && columns.lower[c] < column - 1) ++c;
      std::fill(total.begin(), total.end(), W(0));
      W *to = total.data();
      for (int64_t k = c; k < width && columns.lower[k] <= column; ++k) {
        const W weight = columns.weight(k, column);
        const W *from = sum.data() + k * channels;
        NO_ALIASES for (int64_t i = 0; i < channels; ++i) to[i] = fma_(weight, from[i], to[i]);
      }
      T *result = gx + (task * small_width + column) * channels;
      for (int64_t i = 0; i < channels; ++i) put(to[i], result[i]);
    }
  }
}

// Channels of a wider map, `step` numbers a pixel, as a map of their own.
template <class T>
void part(const T *g, int64_t step, int64_t pixels, int64_t channels, int threads, T *out) {
  constexpr int64_t many = 1 << 14;
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, (pixels + many - 1) / many))) schedule(static)
  for (int64_t start = 0; start < pixels; start += many)
    for (int64_t pixel = start; pixel < std::min(start + many, pixels); ++pixel)
      for (int64_t c = 0; c < channels; c += STEP)
        std::memcpy(out + pixel * channels + c, g + pixel * step + c, STEP * sizeof(T));
}

}  // namespace

#define EXPORT(T, S)                                                                                                   \
  extern "C" void interpolation_backward_##S(const T *g, int64_t n, int64_t h, int64_t w, int64_t c, int64_t sh,      \
                                             int64_t sw, int t, T *gx) {                                              \
    interpolation_backward(g, n, h, w, c, sh, sw, t, gx);                                                             \
  }                                                                                                                    \
  extern "C" void part_##S(const T *g, int64_t step, int64_t p, int64_t c, int t, T *out) {                           \
    part(g, step, p, c, t, out);                                                                                      \
  }

EXPORT(bf16, bf16)
EXPORT(float, float)
EXPORT(double, double)
