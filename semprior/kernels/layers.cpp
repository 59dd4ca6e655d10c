// What lies between two convolutions in training, in as few passes over memory as its mathematics allows.
//
// A map (B, C, H, W) in channels-last memory is a matrix of B*H*W rows and C channels. Batch normalisation needs one
// pass for its sums and one that applies them; whatever comes after it (a residual, a ReLU, a maximum, a gate) is done
// in that second pass, and the backward pass computes it again from the convolution's result instead of reading more.
// Values are bf16, float or double; sums of bf16 and float run in float over at most `CHUNK` rows and in double from
// there, always in the same order, so that results do not depend on the number of threads.
//
// Built by build.py with the machine's own compiler; layers.py is the other side.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "numbers.h"

#if defined(__F16C__) || defined(__AVX512F__)  // what is written for these processors has a plain form beside it
#include <immintrin.h>
#endif

namespace {

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline float sigmoid(float x) {  // 2e-7 relative; the library's exponential does not vectorise
  const float t = std::min(std::max(-x, -87.0f), 87.0f) * 1.44269504f;
  const float whole = std::nearbyint(t), part = (t - whole) * 0.693147181f;
  float power = fma_(part, 1.0f / 5040, 1.0f / 720);
  power = fma_(part, power, 1.0f / 120);
  power = fma_(part, power, 1.0f / 24);
  power = fma_(part, power, 1.0f / 6);
  power = fma_(part, power, 0.5f);
  power = fma_(part, power, 1.0f);
  power = fma_(part, power, 1.0f);
  return 1 / (1 + power * __builtin_bit_cast(float, (int32_t(whole) + 127) << 23));
}

constexpr int LANES = 64;       // numbers that one turn of an inner loop takes
constexpr int64_t CHUNK = 1024;  // rows of LANES that one sum in single precision spans

// The matrix as rows of LANES numbers: several pixels a row for up to LANES channels, several blocks a row for more.
struct View {
  int64_t rows, blocks, stride;
  View(int64_t pixels, int64_t channels)
      : rows(channels <= LANES ? pixels * channels / LANES : pixels), blocks(channels <= LANES ? 1 : channels / LANES),
        stride(channels <= LANES ? LANES : channels) {}
  int64_t tasks() const { return (rows + CHUNK - 1) / CHUNK * blocks; }
  int of(int threads) const { return int(std::min<int64_t>(threads, tasks())); }  // no thread without work
};

// A number a channel, repeated to the width of a row.
template <class W> struct Lanes {
  std::vector<W> values;
  Lanes(const double *channel, int64_t channels) : values(std::max<int64_t>(channels, LANES)) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = W(channel[i % channels]);
  }
  const W *at(int64_t block) const { return values.data() + block * LANES; }
};

// each(first index, block) for every row of LANES numbers.
template <class F> void apply(int64_t pixels, int64_t channels, int threads, F each) {
  const View view(pixels, channels);
#pragma omp parallel for num_threads(view.of(threads)) schedule(static)
  for (int64_t task = 0; task < view.tasks(); ++task) {
    const int64_t block = task % view.blocks, first = task / view.blocks * CHUNK;
    const int64_t end = std::min(first + CHUNK, view.rows);
    for (int64_t row = first; row < end; ++row) each(row * view.stride + block * LANES, block);
  }
}

// Sums a channel, S of them: each(first index, block, sums) adds a row to S * LANES running sums.
template <int S, class W, class F>
void reduce(int64_t pixels, int64_t channels, int threads, double *totals, F each) {
  const View view(pixels, channels);
  std::vector<W> partial(view.tasks() * S * LANES);
#pragma omp parallel for num_threads(view.of(threads)) schedule(static)
  for (int64_t task = 0; task < view.tasks(); ++task) {
    const int64_t block = task % view.blocks, first = task / view.blocks * CHUNK;
    const int64_t end = std::min(first + CHUNK, view.rows);
    W sums[S * LANES] = {};
    for (int64_t row = first; row < end; ++row) each(row * view.stride + block * LANES, block, sums);
    std::copy(sums, sums + S * LANES, partial.begin() + task * S * LANES);
  }
  std::fill(totals, totals + S * channels, 0.0);
  for (int64_t task = 0; task < view.tasks(); ++task)
    for (int s = 0; s < S; ++s)
      for (int j = 0; j < LANES; ++j)
        totals[s * channels + (task % view.blocks * LANES + j) % channels] += partial[(task * S + s) * LANES + j];
}

#define ROW NO_ALIASES for (int j = 0; j < LANES; ++j)

// Sums of (y - shift) and its square a channel; shift, a value of the channel itself, keeps squares from cancelling.
template <class T>
void statistics(const T *y, int64_t pixels, int64_t channels, int threads, double *shift, double *totals) {
  using W = Wide<T>;
  for (int64_t c = 0; c < channels; ++c) shift[c] = double(widen(y[c]));
  const Lanes<W> from(shift, channels);
  reduce<2, W>(pixels, channels, threads, totals, [&](int64_t i, int64_t block, W *sums) {
    const W *f = from.at(block);
    ROW {
      const W value = widen(y[i + j]) - f[j];
      sums[j] += value;
      sums[LANES + j] = fma_(value, value, sums[LANES + j]);
    }
  });
}

// ---- relu(a y + c), and with a residual relu(a y + c + x)

template <class T>
void relu_forward(const T *y, const T *x, int64_t pixels, int64_t channels, int threads, const double *factor,
                  const double *offset, T *out) {
  using W = Wide<T>;
  const Lanes<W> fa(factor, channels), fc(offset, channels);
  if (x)
    apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
      const W *a = fa.at(block), *c = fc.at(block);
      ROW put(std::max(fma_(a[j], widen(y[i + j]), c[j]) + widen(x[i + j]), W(0)), out[i + j]);
    });
  else
    apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
      const W *a = fa.at(block), *c = fc.at(block);
      ROW put(std::max(fma_(a[j], widen(y[i + j]), c[j]), W(0)), out[i + j]);
    });
}

// Sums of g and g (y - mean) where the result is above 0. With a residual, whose result is `out`, g is stored so cut.
template <class T>
void relu_sums(const T *g, const T *y, const T *out, int64_t pixels, int64_t channels, int threads,
               const double *factor, const double *offset, const double *mean, T *residual, double *totals) {
  using W = Wide<T>;
  const Lanes<W> fa(factor, channels), fc(offset, channels), fm(mean, channels);
  if (out)
    reduce<2, W>(pixels, channels, threads, totals, [&](int64_t i, int64_t block, W *sums) {
      const W *m = fm.at(block);
      ROW {
        const W gradient = widen(g[i + j]), cut = widen(out[i + j]) > 0 ? gradient : W(0);
        put(cut, residual[i + j]);
        sums[j] += cut;
        sums[LANES + j] = fma_(cut, widen(y[i + j]) - m[j], sums[LANES + j]);
      }
    });
  else
    reduce<2, W>(pixels, channels, threads, totals, [&](int64_t i, int64_t block, W *sums) {
      const W *a = fa.at(block), *c = fc.at(block), *m = fm.at(block);
      ROW {
        const W value = widen(y[i + j]), gradient = widen(g[i + j]);  // loaded before it is chosen: no branch
        const W cut = fma_(a[j], value, c[j]) > 0 ? gradient : W(0);
        sums[j] += cut;
        sums[LANES + j] = fma_(cut, value - m[j], sums[LANES + j]);
      }
    });
}

// The gradient of a normalised map from that of its result: A g + B y + D, all three a number a channel.
template <class T>
void relu_backward(const T *g, const T *y, bool cut_already, int64_t pixels, int64_t channels, int threads,
                   const double *factor, const double *offset, const double *slope, const double *pull,
                   const double *constant, T *gy) {
  using W = Wide<T>;
  const Lanes<W> fa(factor, channels), fc(offset, channels);
  const Lanes<W> fA(slope, channels), fB(pull, channels), fD(constant, channels);
  if (cut_already)
    apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
      const W *A = fA.at(block), *B = fB.at(block), *D = fD.at(block);
      ROW put(fma_(A[j], widen(g[i + j]), fma_(B[j], widen(y[i + j]), D[j])), gy[i + j]);
    });
  else
    apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
      const W *a = fa.at(block), *c = fc.at(block), *A = fA.at(block), *B = fB.at(block), *D = fD.at(block);
      ROW {
        const W value = widen(y[i + j]), gradient = widen(g[i + j]);  // loaded before it is chosen: no branch
        const W cut = fma_(a[j], value, c[j]) > 0 ? gradient : W(0);
        put(fma_(A[j], cut, fma_(B[j], value, D[j])), gy[i + j]);
      }
    });
}

// ---- relu(sum over k of a_k y_k, + c): up to MOST normalised maps added up; their addresses come as numbers

constexpr int MOST = 4;

template <class T> struct Maps {
  const T *at[MOST];
  Maps(const int64_t *addresses, int64_t count) : at{} {
    for (int64_t k = 0; k < count; ++k) at[k] = reinterpret_cast<const T *>(addresses[k]);
  }
};

template <class W> std::vector<Lanes<W>> lanes(const double *rows, int64_t count, int64_t channels) {
  std::vector<Lanes<W>> all;
  for (int64_t k = 0; k < count; ++k) all.emplace_back(rows + k * channels, channels);
  return all;
}

// factors: a row of channels for each map
template <class T>
void sum_forward(const int64_t *addresses, int64_t count, int64_t pixels, int64_t channels, int threads,
                 const double *factors, const double *offset, T *out) {
  using W = Wide<T>;
  const Maps<T> maps(addresses, count);
  const std::vector<Lanes<W>> fa = lanes<W>(factors, count, channels);
  const Lanes<W> fc(offset, channels);
  apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
    const W *c = fc.at(block);
    W total[LANES];
    ROW total[j] = c[j];
    for (int64_t k = 0; k < count; ++k) {
      const W *a = fa[k].at(block);
      const T *y = maps.at[k] + i;
      ROW total[j] = fma_(a[j], widen(y[j]), total[j]);
    }
    ROW put(std::max(total[j], W(0)), out[i + j]);
  });
}

// The gradient before the ReLU, and its sums a channel: first of itself, then of it times (y_k - mean_k).
template <class T>
void sum_sums(const T *g, const T *out, const int64_t *addresses, int64_t count, int64_t pixels, int64_t channels,
              int threads, const double *means, T *cut, double *totals) {
  using W = Wide<T>;
  const Maps<T> maps(addresses, count);
  const std::vector<Lanes<W>> fm = lanes<W>(means, count, channels);
  reduce<1 + MOST, W>(pixels, channels, threads, totals, [&](int64_t i, int64_t block, W *sums) {
    W kept[LANES];
    ROW {
      const W gradient = widen(g[i + j]);
      kept[j] = widen(out[i + j]) > 0 ? gradient : W(0);
      put(kept[j], cut[i + j]);
      sums[j] += kept[j];
    }
    for (int64_t k = 0; k < count; ++k) {
      const W *m = fm[k].at(block);
      const T *y = maps.at[k] + i;
      W *products = sums + (1 + k) * LANES;
      ROW products[j] = fma_(kept[j], widen(y[j]) - m[j], products[j]);
    }
  });
}

// ---- relu((a y + c) + relu(b z + d)): two normalised maps joined

template <class T>
void join_forward(const T *y, const T *z, int64_t pixels, int64_t channels, int threads, const double *fy,
                  const double *cy, const double *fz, const double *cz, T *out) {
  using W = Wide<T>;
  const Lanes<W> la(fy, channels), lc(cy, channels), lb(fz, channels), ld(cz, channels);
  apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
    const W *a = la.at(block), *c = lc.at(block), *b = lb.at(block), *d = ld.at(block);
    ROW {
      const W other = std::max(fma_(b[j], widen(z[i + j]), d[j]), W(0));
      put(std::max(fma_(a[j], widen(y[i + j]), c[j]) + other, W(0)), out[i + j]);
    }
  });
}

template <class T>
void join_sums(const T *g, const T *y, const T *z, const T *out, int64_t pixels, int64_t channels, int threads,
               const double *fz, const double *cz, const double *my, const double *mz, double *totals) {
  using W = Wide<T>;
  const Lanes<W> lb(fz, channels), ld(cz, channels), lm(my, channels), ln(mz, channels);
  reduce<4, W>(pixels, channels, threads, totals, [&](int64_t i, int64_t block, W *sums) {
    const W *b = lb.at(block), *d = ld.at(block), *m = lm.at(block), *n = ln.at(block);
    ROW {
      const W gradient = widen(g[i + j]), value = widen(z[i + j]);
      const W cut = widen(out[i + j]) > 0 ? gradient : W(0);
      const W other = fma_(b[j], value, d[j]) > 0 ? cut : W(0);
      sums[j] += cut;
      sums[LANES + j] = fma_(cut, widen(y[i + j]) - m[j], sums[LANES + j]);
      sums[2 * LANES + j] += other;
      sums[3 * LANES + j] = fma_(other, value - n[j], sums[3 * LANES + j]);
    }
  });
}

// coefficients: A, B, D of y, then of z, a row of channels each
template <class T>
void join_backward(const T *g, const T *y, const T *z, const T *out, int64_t pixels, int64_t channels, int threads,
                   const double *fz, const double *cz, const double *coefficients, T *gy, T *gz) {
  using W = Wide<T>;
  const Lanes<W> lb(fz, channels), ld(cz, channels);
  std::vector<Lanes<W>> k;
  for (int s = 0; s < 6; ++s) k.emplace_back(coefficients + s * channels, channels);
  apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
    const W *b = lb.at(block), *d = ld.at(block);
    const W *A = k[0].at(block), *B = k[1].at(block), *D = k[2].at(block);
    const W *E = k[3].at(block), *F = k[4].at(block), *G = k[5].at(block);
    ROW {
      const W gradient = widen(g[i + j]), value = widen(z[i + j]);
      const W cut = widen(out[i + j]) > 0 ? gradient : W(0);
      const W other = fma_(b[j], value, d[j]) > 0 ? cut : W(0);
      put(fma_(A[j], cut, fma_(B[j], widen(y[i + j]), D[j])), gy[i + j]);
      put(fma_(E[j], other, fma_(F[j], value, G[j])), gz[i + j]);
    }
  });
}

// ---- x + relu(a y + c) * sigmoid(b z + d): a normalised map let through by a normalised gate

template <class T>
void gate_forward(const T *x, const T *y, const T *z, int64_t pixels, int64_t channels, int threads, const double *fy,
                  const double *cy, const double *fz, const double *cz, T *out) {
  using W = Wide<T>;
  const Lanes<W> la(fy, channels), lc(cy, channels), lb(fz, channels), ld(cz, channels);
  apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
    const W *a = la.at(block), *c = lc.at(block), *b = lb.at(block), *d = ld.at(block);
    ROW {
      const W value = std::max(fma_(a[j], widen(y[i + j]), c[j]), W(0));
      put(fma_(value, sigmoid(fma_(b[j], widen(z[i + j]), d[j])), widen(x[i + j])), out[i + j]);
    }
  });
}

// The gradients before normalisation of map and gate at one place.
template <class W> inline void through_gate(W g, W value, W open, W &of_map, W &of_gate) {
  of_map = value > 0 ? g * open : W(0);
  of_gate = value > 0 ? g * value * open * (1 - open) : W(0);
}

template <class T>
void gate_sums(const T *g, const T *y, const T *z, int64_t pixels, int64_t channels, int threads, const double *fy,
               const double *cy, const double *fz, const double *cz, const double *my, const double *mz,
               double *totals) {
  using W = Wide<T>;
  const Lanes<W> la(fy, channels), lc(cy, channels), lb(fz, channels), ld(cz, channels);
  const Lanes<W> lm(my, channels), ln(mz, channels);
  reduce<4, W>(pixels, channels, threads, totals, [&](int64_t i, int64_t block, W *sums) {
    const W *a = la.at(block), *c = lc.at(block), *b = lb.at(block), *d = ld.at(block);
    const W *m = lm.at(block), *n = ln.at(block);
    ROW {
      const W first = widen(y[i + j]), second = widen(z[i + j]);
      W of_map, of_gate;
      through_gate(widen(g[i + j]), fma_(a[j], first, c[j]), sigmoid(fma_(b[j], second, d[j])), of_map, of_gate);
      sums[j] += of_map;
      sums[LANES + j] = fma_(of_map, first - m[j], sums[LANES + j]);
      sums[2 * LANES + j] += of_gate;
      sums[3 * LANES + j] = fma_(of_gate, second - n[j], sums[3 * LANES + j]);
    }
  });
}

template <class T>
void gate_backward(const T *g, const T *y, const T *z, int64_t pixels, int64_t channels, int threads,
                   const double *fy, const double *cy, const double *fz, const double *cz,
                   const double *coefficients, T *gy, T *gz) {
  using W = Wide<T>;
  const Lanes<W> la(fy, channels), lc(cy, channels), lb(fz, channels), ld(cz, channels);
  std::vector<Lanes<W>> k;
  for (int s = 0; s < 6; ++s) k.emplace_back(coefficients + s * channels, channels);
  apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
    const W *a = la.at(block), *c = lc.at(block), *b = lb.at(block), *d = ld.at(block);
    const W *A = k[0].at(block), *B = k[1].at(block), *D = k[2].at(block);
    const W *E = k[3].at(block), *F = k[4].at(block), *G = k[5].at(block);
    ROW {
      const W first = widen(y[i + j]), second = widen(z[i + j]);
      W of_map, of_gate;
      through_gate(widen(g[i + j]), fma_(a[j], first, c[j]), sigmoid(fma_(b[j], second, d[j])), of_map, of_gate);
      put(fma_(A[j], of_map, fma_(B[j], first, D[j])), gy[i + j]);
      put(fma_(E[j], of_gate, fma_(F[j], second, G[j])), gz[i + j]);
    }
  });
}

// ---- relu(maximum of 2x2 of (a y + c)); of equal values the first in the order of rows counts

constexpr int POOLED = 32;  // channels that one turn takes

#define PART NO_ALIASES for (int j = 0; j < POOLED; ++j)

// each(index of the four, index of the result, first channel) for every result and block of channels of a line.
template <class F>
inline void pooled_line(int64_t line, int64_t width, int64_t channels, F each) {  // width of the result
  for (int64_t column = 0; column < width; ++column)
    for (int64_t c = 0; c < channels; c += POOLED)
      each((2 * line * 2 * width + 2 * column) * channels + c, (line * width + column) * channels + c, c);
}

template <class T>
void pool_forward(const T *y, int64_t lines, int64_t width, int64_t channels, int threads, const double *factor,
                  const double *offset, T *out) {
  using W = Wide<T>;
  const Lanes<W> fa(factor, channels), fc(offset, channels);
  const int64_t right = channels, below = 2 * width * channels;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t line = 0; line < lines; ++line)
    pooled_line(line, width, channels, [&](int64_t i, int64_t o, int64_t first) {
      const W *a = fa.values.data() + first, *c = fc.values.data() + first;
      PART {
        const W upper = std::max(fma_(a[j], widen(y[i + j]), c[j]), fma_(a[j], widen(y[i + right + j]), c[j]));
        const W lower =
            std::max(fma_(a[j], widen(y[i + below + j]), c[j]), fma_(a[j], widen(y[i + below + right + j]), c[j]));
        put(std::max(std::max(upper, lower), W(0)), out[o + j]);
      }
    });
}

// Which of four values is the maximum above 0 that gets the gradient g; the other three get 0.
template <class W> inline void to_the_maximum(const W (&v)[4], W g, W (&parts)[4]) {
  const bool second = v[1] > v[0], fourth = v[3] > v[2];
  const W upper = second ? v[1] : v[0], lower = fourth ? v[3] : v[2];
  const bool down = lower > upper;
  const W passed = (down ? lower : upper) > 0 ? g : W(0);
  const W above = down ? W(0) : passed, under = down ? passed : W(0);
  parts[0] = second ? W(0) : above;
  parts[1] = second ? above : W(0);
  parts[2] = fourth ? W(0) : under;
  parts[3] = fourth ? under : W(0);
}

template <class T>
void pool_sums(const T *g, const T *y, int64_t lines, int64_t width, int64_t channels, int threads,
               const double *factor, const double *offset, const double *mean, double *totals) {
  using W = Wide<T>;
  const Lanes<W> fa(factor, channels), fc(offset, channels), fm(mean, channels);
  const int64_t right = channels, below = 2 * width * channels;
  std::vector<W> partial(lines * 2 * channels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t line = 0; line < lines; ++line) {
    W *sums = partial.data() + line * 2 * channels;
    pooled_line(line, width, channels, [&](int64_t i, int64_t o, int64_t first) {
      const W *a = fa.values.data() + first, *c = fc.values.data() + first, *m = fm.values.data() + first;
      W *ones = sums + first, *twos = sums + channels + first;
      PART {
        const W v[4] = {widen(y[i + j]), widen(y[i + right + j]), widen(y[i + below + j]),
                        widen(y[i + below + right + j])};
        const W n[4] = {fma_(a[j], v[0], c[j]), fma_(a[j], v[1], c[j]), fma_(a[j], v[2], c[j]),
                        fma_(a[j], v[3], c[j])};
        W parts[4];
        to_the_maximum(n, widen(g[o + j]), parts);
        W sum = 0, product = 0;
        for (int k = 0; k < 4; ++k) {
          sum += parts[k];
          product = fma_(parts[k], v[k] - m[j], product);
        }
        ones[j] += sum;
        twos[j] += product;
      }
    });
  }
  std::fill(totals, totals + 2 * channels, 0.0);
  for (int64_t line = 0; line < lines; ++line)
    for (int64_t i = 0; i < 2 * channels; ++i) totals[i] += partial[line * 2 * channels + i];
}

template <class T>
void pool_backward(const T *g, const T *y, int64_t lines, int64_t width, int64_t channels, int threads,
                   const double *factor, const double *offset, const double *slope, const double *pull,
                   const double *constant, T *gy) {
  using W = Wide<T>;
  const Lanes<W> fa(factor, channels), fc(offset, channels);
  const Lanes<W> fA(slope, channels), fB(pull, channels), fD(constant, channels);
  const int64_t right = channels, below = 2 * width * channels;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t line = 0; line < lines; ++line)
    pooled_line(line, width, channels, [&](int64_t i, int64_t o, int64_t first) {
      const W *a = fa.values.data() + first, *c = fc.values.data() + first;
      const W *A = fA.values.data() + first, *B = fB.values.data() + first, *D = fD.values.data() + first;
      PART {
        const W v[4] = {widen(y[i + j]), widen(y[i + right + j]), widen(y[i + below + j]),
                        widen(y[i + below + right + j])};
        const W n[4] = {fma_(a[j], v[0], c[j]), fma_(a[j], v[1], c[j]), fma_(a[j], v[2], c[j]),
                        fma_(a[j], v[3], c[j])};
        W parts[4];
        to_the_maximum(n, widen(g[o + j]), parts);
        put(fma_(A[j], parts[0], fma_(B[j], v[0], D[j])), gy[i + j]);
        put(fma_(A[j], parts[1], fma_(B[j], v[1], D[j])), gy[i + right + j]);
        put(fma_(A[j], parts[2], fma_(B[j], v[2], D[j])), gy[i + below + j]);
        put(fma_(A[j], parts[3], fma_(B[j], v[3], D[j])), gy[i + below + right + j]);
      }
    });
}

// ---- factor * x + offset with both a number an image and channel

template <class T>
void affine_forward(const T *x, int64_t images, int64_t pixels, int64_t channels, int threads, const double *factor,
                    const double *offset, T *out) {
  using W = Wide<T>;
  for (int64_t n = 0; n < images; ++n) {
    const Lanes<W> fa(factor + n * channels, channels), fc(offset + n * channels, channels);
    const T *from = x + n * pixels * channels;
    T *to = out + n * pixels * channels;
    apply(pixels, channels, threads, [&](int64_t i, int64_t block) {
      const W *a = fa.at(block), *c = fc.at(block);
      ROW put(fma_(a[j], widen(from[i + j]), c[j]), to[i + j]);
    });
  }
}

// totals, for each image: sums of g, then of g x, a channel
template <class T>
void affine_backward(const T *g, const T *x, int64_t images, int64_t pixels, int64_t channels, int threads,
                     const double *factor, T *gx, double *totals) {
  using W = Wide<T>;
  for (int64_t n = 0; n < images; ++n) {
    const Lanes<W> fa(factor + n * channels, channels);
    const int64_t start = n * pixels * channels;
    reduce<2, W>(pixels, channels, threads, totals + 2 * n * channels, [&](int64_t i, int64_t block, W *sums) {
      const W *a = fa.at(block);
      ROW {
        const W gradient = widen(g[start + i + j]);
        put(a[j] * gradient, gx[start + i + j]);
        sums[j] += gradient;
        sums[LANES + j] = fma_(gradient, widen(x[start + i + j]), sums[LANES + j]);
      }
    });
  }
}

// ---- the gradient before a ReLU whose result is `out`; g may be some channels of a wider map: `step` numbers a pixel

constexpr int STEP = 16;

template <class T> inline void cut_part(const T *__restrict g, const T *__restrict out, T *__restrict result) {
  // Not unrolled, or it is no loop any more when the compiler looks for loops to vectorise.
#pragma GCC unroll 1
  for (int j = 0; j < STEP; ++j) {
    const Wide<T> gradient = widen(g[j]);
    put(widen(out[j]) > 0 ? gradient : Wide<T>(0), result[j]);
  }
}

template <class T>
void cut(const T *g, int64_t step, const T *out, int64_t pixels, int64_t channels, int threads, T *result) {
  if (step == channels && channels % LANES == 0)
    return apply(pixels, channels, threads, [&](int64_t i, int64_t) {
      ROW {
        const Wide<T> gradient = widen(g[i + j]);
        put(widen(out[i + j]) > 0 ? gradient : Wide<T>(0), result[i + j]);
      }
    });
  constexpr int64_t many = 1 << 14;
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, (pixels + many - 1) / many))) schedule(static)
  for (int64_t start = 0; start < pixels; start += many)
    for (int64_t pixel = start; pixel < std::min(start + many, pixels); ++pixel)
      for (int64_t c = 0; c < channels; c += STEP)
        cut_part(g + pixel * step + c, out + pixel * channels + c, result + pixel * channels + c);
}

// ---- a mixture of K maps in float16 that lie side by side in every token; `step` numbers a token

inline void half_to_float(const uint16_t *from, float *to) {  // STEP numbers
#if defined(__AVX512F__)
  _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from))));
#elif defined(__F16C__)
  for (int j = 0; j < STEP; j += 8)
    _mm256_storeu_ps(to + j, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from + j))));
#else
  for (int j = 0; j < STEP; ++j) {  // bits of a float whose exponent is too small by 112; a product mends it
    const uint32_t bits = uint32_t(from[j] & 0x7fff) << 13 | uint32_t(from[j] & 0x8000) << 16;
    to[j] = __builtin_bit_cast(float, bits) * 0x1p112f;
  }
#endif
}

}  // namespace

// out[t, c] = sum_k share[k] map[t, k, c]
extern "C" void mixture_forward(const uint16_t *maps, int64_t step, int64_t tokens, int64_t count, int64_t channels,
                                int threads, const double *share, float *out) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < channels; c += STEP) {
      float sum[STEP] = {}, value[STEP];
      for (int64_t k = 0; k < count; ++k) {
        half_to_float(maps + t * step + k * channels + c, value);
        for (int j = 0; j < STEP; ++j) sum[j] += float(share[k]) * value[j];
      }
      std::copy(sum, sum + STEP, out + t * channels + c);
    }
}

// of_share[k] = sum_tc g[t, c] map[t, k, c]
extern "C" void mixture_backward(const uint16_t *maps, int64_t step, int64_t tokens, int64_t count, int64_t channels,
                                 int threads, const float *g, double *of_share) {
  std::vector<float> partial(tokens * count);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = 0; k < count; ++k) {
      float sum[STEP] = {}, value[STEP];
      for (int64_t c = 0; c < channels; c += STEP) {
        half_to_float(maps + t * step + k * channels + c, value);
        for (int j = 0; j < STEP; ++j) sum[j] += g[t * channels + c + j] * value[j];
      }
      float total = 0;
      for (int j = 0; j < STEP; ++j) total += sum[j];
      partial[t * count + k] = total;
    }
  std::fill(of_share, of_share + count, 0.0);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = 0; k < count; ++k) of_share[k] += partial[t * count + k];
}

#define EXPORT(T, S)                                                                                                   \
  extern "C" void statistics_##S(const T *y, int64_t p, int64_t c, int t, double *shift, double *totals) {            \
    statistics(y, p, c, t, shift, totals);                                                                            \
  }                                                                                                                    \
  extern "C" void relu_forward_##S(const T *y, const T *x, int64_t p, int64_t c, int t, const double *f,              \
                                   const double *o, T *out) {                                                         \
    relu_forward(y, x, p, c, t, f, o, out);                                                                           \
  }                                                                                                                    \
  extern "C" void relu_sums_##S(const T *g, const T *y, const T *out, int64_t p, int64_t c, int t, const double *f,   \
                                const double *o, const double *m, T *residual, double *totals) {                      \
    relu_sums(g, y, out, p, c, t, f, o, m, residual, totals);                                                         \
  }                                                                                                                    \
  extern "C" void relu_backward_##S(const T *g, const T *y, int cut, int64_t p, int64_t c, int t, const double *f,    \
                                    const double *o, const double *A, const double *B, const double *D, T *gy) {      \
    relu_backward(g, y, cut != 0, p, c, t, f, o, A, B, D, gy);                                                        \
  }                                                                                                                    \
  extern "C" void sum_forward_##S(const int64_t *maps, int64_t k, int64_t p, int64_t c, int t, const double *f,       \
                                  const double *o, T *out) {                                                          \
    sum_forward(maps, k, p, c, t, f, o, out);                                                                         \
  }                                                                                                                    \
  extern "C" void sum_sums_##S(const T *g, const T *out, const int64_t *maps, int64_t k, int64_t p, int64_t c, int t, \
                               const double *m, T *cut, double *totals) {                                             \
    sum_sums(g, out, maps, k, p, c, t, m, cut, totals);                                                               \
  }                                                                                                                    \
  extern "C" void join_forward_##S(const T *y, const T *z, int64_t p, int64_t c, int t, const double *fy,             \
                                   const double *cy, const double *fz, const double *cz, T *out) {                    \
    join_forward(y, z, p, c, t, fy, cy, fz, cz, out);                                                                 \
  }                                                                                                                    \
  extern "C" void join_sums_##S(const T *g, const T *y, const T *z, const T *out, int64_t p, int64_t c, int t,        \
                                const double *fz, const double *cz, const double *my, const double *mz,               \
                                double *totals) {                                                                     \
    join_sums(g, y, z, out, p, c, t, fz, cz, my, mz, totals);                                                         \
  }                                                                                                                    \
  extern "C" void join_backward_##S(const T *g, const T *y, const T *z, const T *out, int64_t p, int64_t c, int t,    \
                                    const double *fz, const double *cz, const double *k, T *gy, T *gz) {              \
    join_backward(g, y, z, out, p, c, t, fz, cz, k, gy, gz);                                                          \
  }                                                                                                                    \
  extern "C" void gate_forward_##S(const T *x, const T *y, const T *z, int64_t p, int64_t c, int t, const double *fy, \
                                   const double *cy, const double *fz, const double *cz, T *out) {                    \
    gate_forward(x, y, z, p, c, t, fy, cy, fz, cz, out);                                                              \
  }                                                                                                                    \
  extern "C" void gate_sums_##S(const T *g, const T *y, const T *z, int64_t p, int64_t c, int t, const double *fy,    \
                                const double *cy, const double *fz, const double *cz, const double *my,               \
                                const double *mz, double *totals) {                                                   \
    gate_sums(g, y, z, p, c, t, fy, cy, fz, cz, my, mz, totals);                                                      \
  }                                                                                                                    \
  extern "C" void gate_backward_##S(const T *g, const T *y, const T *z, int64_t p, int64_t c, int t,                  \
                                    const double *fy, const double *cy, const double *fz, const double *cz,           \
                                    const double *k, T *gy, T *gz) {                                                  \
    gate_backward(g, y, z, p, c, t, fy, cy, fz, cz, k, gy, gz);                                                       \
  }                                                                                                                    \
  extern "C" void pool_forward_##S(const T *y, int64_t l, int64_t w, int64_t c, int t, const double *f,               \
                                   const double *o, T *out) {                                                         \
    pool_forward(y, l, w, c, t, f, o, out);                                                                           \
  }                                                                                                                    \
  extern "C" void pool_sums_##S(const T *g, const T *y, int64_t l, int64_t w, int64_t c, int t, const double *f,      \
                                const double *o, const double *m, double *totals) {                                   \
    pool_sums(g, y, l, w, c, t, f, o, m, totals);                                                                     \
  }                                                                                                                    \
  extern "C" void pool_backward_##S(const T *g, const T *y, int64_t l, int64_t w, int64_t c, int t, const double *f,  \
                                    const double *o, const double *A, const double *B, const double *D, T *gy) {      \
    pool_backward(g, y, l, w, c, t, f, o, A, B, D, gy);                                                               \
  }                                                                                                                    \
  extern "C" void affine_forward_##S(const T *x, int64_t n, int64_t p, int64_t c, int t, const double *f,             \
                                     const double *o, T *out) {                                                       \
    affine_forward(x, n, p, c, t, f, o, out);                                                                         \
  }                                                                                                                    \
  extern "C" void affine_backward_##S(const T *g, const T *x, int64_t n, int64_t p, int64_t c, int t, const double *f,\
                                      T *gx, double *totals) {                                                        \
    affine_backward(g, x, n, p, c, t, f, gx, totals);                                                                 \
  }                                                                                                                    \
  extern "C" void cut_##S(const T *g, int64_t step, const T *out, int64_t p, int64_t c, int t, T *result) {           \
    cut(g, step, out, p, c, t, result);                                                                               \
  }

EXPORT(bf16, bf16)
EXPORT(float, float)
EXPORT(double, double)
