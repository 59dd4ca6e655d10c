// Weights over channels and over pixels, from sums and maxima of a map, and a residual, in three passes each way.
//
// A map (B, C, H, W) in channels-last memory is, for each image, a matrix of H*W pixels and C channels. Of
// relu(t (p y + q) + x), p and q are a number an image and channel, t is one a pixel, y comes from a convolution, and x
// is the residual. Values are bf16, float or double; sums run as in layers.cpp, in an order that does not depend on
// the number of threads. Of equal largest values the first in the order of pixels or channels counts.
//
// Built by build.py with the machine's own compiler; attention.py is the other side.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "numbers.h"

namespace {

constexpr int STEP = 16;          // channels that one turn of an inner loop takes
constexpr int64_t CHUNK = 1024;   // pixels that one sum in single precision spans

// Not unrolled, or it is no loop any more when the compiler looks for loops to vectorise.
#define PART NO_ALIASES _Pragma("GCC unroll 1") for (int j = 0; j < STEP; ++j)

// each(image, first pixel, pixel behind the last, task) for every chunk of pixels of every image.
template <class F> void chunks(int64_t images, int64_t pixels, int threads, F each) {
  const int64_t parts = (pixels + CHUNK - 1) / CHUNK, tasks = images * parts;
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, tasks))) schedule(static)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t first = task % parts * CHUNK;
    each(task / parts, first, std::min(first + CHUNK, pixels), task);
  }
}

// Numbers of one kind for all tasks, added up in order for each image.
template <class W> struct Sums {
  int64_t parts, size;
  std::vector<W> partial;
  Sums(int64_t images, int64_t pixels, int64_t size)
      : parts((pixels + CHUNK - 1) / CHUNK), size(size), partial(images * parts * size) {}
  W *of(int64_t task) { return partial.data() + task * size; }
  void total(int64_t images, double *totals) const {
    std::fill(totals, totals + images * size, 0.0);
    for (int64_t task = 0; task < images * parts; ++task)
      for (int64_t i = 0; i < size; ++i) totals[task / parts * size + i] += partial[task * size + i];
  }
};

template <class W> std::vector<W> narrow(const double *from, int64_t count) {
  return std::vector<W>(from, from + count);
}

// totals, for each image: sums of (y - shift) and of its square a channel, then its largest and its smallest value;
// places: the pixels of these.
template <class T>
void pools(const T *y, int64_t images, int64_t pixels, int64_t channels, int threads, double *shift, double *totals,
           int64_t *places) {
  using W = Wide<T>;
  for (int64_t c = 0; c < channels; ++c) shift[c] = double(widen(y[c]));
  const std::vector<W> from = narrow<W>(shift, channels);
  const int64_t parts = (pixels + CHUNK - 1) / CHUNK, width = 4 * channels;
  std::vector<W> values(images * parts * width);
  std::vector<int32_t> at(images * parts * 2 * channels);  // counted from the chunk's first pixel
  chunks(images, pixels, threads, [&](int64_t image, int64_t first, int64_t end, int64_t task) {
    for (int64_t c = 0; c < channels; c += STEP) {
      W sum[STEP] = {}, square[STEP] = {}, most[STEP], least[STEP];
      int32_t highest[STEP] = {}, lowest[STEP] = {};
      const T *row = y + (image * pixels + first) * channels + c;
      const W *f = from.data() + c;
      PART most[j] = least[j] = widen(row[j]);
      for (int64_t pixel = first; pixel < end; ++pixel, row += channels) {
        const int32_t here = int32_t(pixel - first);
        PART {
          const W value = widen(row[j]), moved = value - f[j];
          sum[j] += moved;
          square[j] = fma_(moved, moved, square[j]);
          highest[j] = value > most[j] ? here : highest[j];
          most[j] = std::max(most[j], value);
          lowest[j] = value < least[j] ? here : lowest[j];
          least[j] = std::min(least[j], value);
        }
      }
      W *to = values.data() + task * width + c;
      int32_t *places_to = at.data() + task * 2 * channels + c;
      for (int j = 0; j < STEP; ++j) {
        to[j] = sum[j], to[channels + j] = square[j], to[2 * channels + j] = most[j], to[3 * channels + j] = least[j];
        places_to[j] = highest[j], places_to[channels + j] = lowest[j];
      }
    }
  });
  std::fill(totals, totals + images * width, 0.0);
  for (int64_t image = 0; image < images; ++image) {
    double *to = totals + image * width;
    int64_t *places_to = places + image * 2 * channels;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t task = image * parts + part;
      const W *value = values.data() + task * width;
      for (int64_t i = 0; i < 2 * channels; ++i) to[i] += value[i];
      for (int64_t i = 0; i < 2 * channels; ++i) {
        const double extreme = value[2 * channels + i];
        double &best = to[2 * channels + i];
        if (part == 0 || (i < channels ? extreme > best : extreme < best)) {
          best = extreme;
          places_to[i] = part * CHUNK + at[task * 2 * channels + i];
        }
      }
    }
  }
}

// g + constant + pull * y, the last two a number an image and channel; g may be absent.
template <class T>
void pools_backward(const T *g, const T *y, int64_t images, int64_t pixels, int64_t channels, int threads,
                    const double *constant, const double *pull, T *gy) {
  using W = Wide<T>;
  const std::vector<W> constants = narrow<W>(constant, images * channels), pulls = narrow<W>(pull, images * channels);
  chunks(images, pixels, threads, [&](int64_t image, int64_t first, int64_t end, int64_t) {
    const W *D = constants.data() + image * channels, *B = pulls.data() + image * channels;
    for (int64_t pixel = first; pixel < end; ++pixel) {
      const int64_t i = (image * pixels + pixel) * channels;
      if (g)
        for (int64_t c = 0; c < channels; c += STEP)
          PART put(fma_(B[c + j], widen(y[i + c + j]), D[c + j]) + widen(g[i + c + j]), gy[i + c + j]);
      else
        for (int64_t c = 0; c < channels; c += STEP)
          PART put(fma_(B[c + j], widen(y[i + c + j]), D[c + j]), gy[i + c + j]);
    }
  });
}

// out, two numbers a pixel: the largest and the mean channel of p y + q; places: the channel of the largest.
template <class T>
void across(const T *y, int64_t images, int64_t pixels, int64_t channels, int threads, const double *factor,
            const double *offset, T *out, int16_t *places) {
  using W = Wide<T>;
  const std::vector<W> factors = narrow<W>(factor, images * channels), offsets = narrow<W>(offset, images * channels);
  chunks(images, pixels, threads, [&](int64_t image, int64_t first, int64_t end, int64_t) {
    const W *p = factors.data() + image * channels, *q = offsets.data() + image * channels;
    for (int64_t pixel = first; pixel < end; ++pixel) {
      const int64_t at = image * pixels + pixel;
      const T *row = y + at * channels;
      W most[STEP], sum[STEP];
      int32_t highest[STEP] = {};
      PART most[j] = sum[j] = fma_(p[j], widen(row[j]), q[j]);
      for (int64_t c = STEP; c < channels; c += STEP) {
        const int32_t here = int32_t(c);
        PART {
          const W value = fma_(p[c + j], widen(row[c + j]), q[c + j]);
          sum[j] += value;
          highest[j] = value > most[j] ? here : highest[j];
          most[j] = std::max(most[j], value);
        }
      }
      W largest = most[0], total = sum[0];
      for (int j = 1; j < STEP; ++j) largest = std::max(largest, most[j]), total += sum[j];
      int32_t place = int32_t(channels);
      for (int j = 0; j < STEP; ++j) place = std::min(place, most[j] == largest ? highest[j] + j : int32_t(channels));
      put(largest, out[2 * at]);
      put(total / W(channels), out[2 * at + 1]);
      places[at] = int16_t(place);
    }
  });
}

// From the gradient of the two numbers a pixel: gy = rest + p u, with u the gradient of p y + q; rest may be absent.
// totals, for each image: sums of u y, then of u, a channel.
template <class T>
void across_backward(const T *g, const T *rest, const T *y, const int16_t *places, int64_t images, int64_t pixels,
                     int64_t channels, int threads, const double *factor, T *gy, double *totals) {
  using W = Wide<T>;
  const std::vector<W> factors = narrow<W>(factor, images * channels);
  Sums<W> sums(images, pixels, 2 * channels);
  chunks(images, pixels, threads, [&](int64_t image, int64_t first, int64_t end, int64_t task) {
    const W *p = factors.data() + image * channels;
    W *products = sums.of(task), *ones = products + channels;
    for (int64_t pixel = first; pixel < end; ++pixel) {
      const int64_t at = image * pixels + pixel;
      const W largest = widen(g[2 * at]), mean = widen(g[2 * at + 1]) / W(channels);
      for (int64_t c = 0; c < channels; c += STEP) {
        const T *row = y + at * channels + c;
        T *to = gy + at * channels + c;
        const int32_t place = places[at] - int32_t(c);
        if (rest) {
          const T *more = rest + at * channels + c;
          PART {
            const W u = j == place ? mean + largest : mean;
            put(fma_(p[c + j], u, widen(more[j])), to[j]);
            products[c + j] = fma_(u, widen(row[j]), products[c + j]);
            ones[c + j] += u;
          }
        } else
          PART {
            const W u = j == place ? mean + largest : mean;
            put(p[c + j] * u, to[j]);
            products[c + j] = fma_(u, widen(row[j]), products[c + j]);
            ones[c + j] += u;
          }
      }
    }
  });
  sums.total(images, totals);
}

// relu(t (p y + q) + x)
template <class T>
void weigh(const T *y, const T *x, const T *weights, int64_t images, int64_t pixels, int64_t channels, int threads,
           const double *factor, const double *offset, T *out) {
  using W = Wide<T>;
  const std::vector<W> factors = narrow<W>(factor, images * channels), offsets = narrow<W>(offset, images * channels);
  chunks(images, pixels, threads, [&](int64_t image, int64_t first, int64_t end, int64_t) {
    const W *p = factors.data() + image * channels, *q = offsets.data() + image * channels;
    for (int64_t pixel = first; pixel < end; ++pixel) {
      const int64_t at = image * pixels + pixel, i = at * channels;
      const W t = widen(weights[at]);
      for (int64_t c = 0; c < channels; c += STEP)
        PART {
          const W value = fma_(p[c + j], widen(y[i + c + j]), q[c + j]);
          put(std::max(fma_(t, value, widen(x[i + c + j])), W(0)), out[i + c + j]);
        }
    }
  });
}

// totals, for each image: sums of u y, then of u, a channel, with u the gradient of p y + q.
template <class T>
void weigh_backward(const T *g, const T *out, const T *y, const T *weights, int64_t images, int64_t pixels,
                    int64_t channels, int threads, const double *factor, const double *offset, T *gy, T *gx,
                    T *of_weights, double *totals) {
  using W = Wide<T>;
  const std::vector<W> factors = narrow<W>(factor, images * channels), offsets = narrow<W>(offset, images * channels);
  Sums<W> sums(images, pixels, 2 * channels);
  chunks(images, pixels, threads, [&](int64_t image, int64_t first, int64_t end, int64_t task) {
    const W *p = factors.data() + image * channels, *q = offsets.data() + image * channels;
    W *products = sums.of(task), *ones = products + channels;
    for (int64_t pixel = first; pixel < end; ++pixel) {
      const int64_t at = image * pixels + pixel, i = at * channels;
      const W t = widen(weights[at]);
      W of_weight[STEP] = {};
      for (int64_t c = 0; c < channels; c += STEP)
        PART {
          const W gradient = widen(g[i + c + j]), cut = widen(out[i + c + j]) > 0 ? gradient : W(0);
          const W value = widen(y[i + c + j]), u = t * cut;
          of_weight[j] = fma_(cut, fma_(p[c + j], value, q[c + j]), of_weight[j]);
          put(cut, gx[i + c + j]);
          put(p[c + j] * u, gy[i + c + j]);
          products[c + j] = fma_(u, value, products[c + j]);
          ones[c + j] += u;
        }
      W total = 0;
      for (int j = 0; j < STEP; ++j) total += of_weight[j];
      put(total, of_weights[at]);
    }
  });
  sums.total(images, totals);
}

}  // namespace

#define EXPORT(T, S)                                                                                                   \
  extern "C" void pools_##S(const T *y, int64_t n, int64_t p, int64_t c, int t, double *shift, double *totals,        \
                            int64_t *places) {                                                                        \
    pools(y, n, p, c, t, shift, totals, places);                                                                      \
  }                                                                                                                    \
  extern "C" void pools_backward_##S(const T *g, const T *y, int64_t n, int64_t p, int64_t c, int t,                  \
                                     const double *constant, const double *pull, T *gy) {                             \
    pools_backward(g, y, n, p, c, t, constant, pull, gy);                                                             \
  }                                                                                                                    \
  extern "C" void across_##S(const T *y, int64_t n, int64_t p, int64_t c, int t, const double *factor,                \
                             const double *offset, T *out, int16_t *places) {                                         \
    across(y, n, p, c, t, factor, offset, out, places);                                                               \
  }                                                                                                                    \
  extern "C" void across_backward_##S(const T *g, const T *rest, const T *y, const int16_t *places, int64_t n,        \
                                      int64_t p, int64_t c, int t, const double *factor, T *gy, double *totals) {     \
    across_backward(g, rest, y, places, n, p, c, t, factor, gy, totals);                                              \
  }                                                                                                                    \
  extern "C" void weigh_##S(const T *y, const T *x, const T *weights, int64_t n, int64_t p, int64_t c, int t,         \
                            const double *factor, const double *offset, T *out) {                                     \
    weigh(y, x, weights, n, p, c, t, factor, offset, out);                                                            \
  }                                                                                                                    \
  extern "C" void weigh_backward_##S(const T *g, const T *out, const T *y, const T *weights, int64_t n, int64_t p,    \
                                     int64_t c, int t, const double *factor, const double *offset, T *gy, T *gx,      \
                                     T *of_weights, double *totals) {                                                 \
    weigh_backward(g, out, y, weights, n, p, c, t, factor, offset, gy, gx, of_weights, totals);                       \
  }

EXPORT(bf16, bf16)
EXPORT(float, float)
EXPORT(double, double)
