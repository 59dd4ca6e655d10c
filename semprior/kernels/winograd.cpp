// Convolutions of 3x3 and 5x5 in float32 with fewer products: Winograd's minimal filtering, F(4x4, 3x3) and F(2x2, 5x5).
//
// Six values of a line give M results of a filter of R taps, M + R - 1 = 6, with 6 products instead of M R: polynomials
// are multiplied at the points 0, 1, -1, 2, -2 and infinity. In two dimensions a tile of 6x6 pixels of every input
// channel is transformed, multiplied at each of its 36 places by a matrix of channels, and transformed back: 4 times
// fewer products than directly for 3x3, 2.8 times for 5x5. (A. Lavin and S. Gray, "Fast Algorithms for Convolutional
// Neural Networks", CVPR 2016.) The gradient of the filter is the adjoint of the same steps, that of the input another
// convolution. Dilated filters are filters on every d-th pixel. Filters of 1x1 are the product of channels alone.
//
// Maps are float32 (B, H, W, C) in memory, channels multiples of 16, strides 1, results as large as inputs. Every tile
// is computed alike, and partial sums of the filter's gradient do not depend on the number of threads: nor do results.
//
// Vectors are those of the compiler, 8 numbers wide; there is nothing of one processor here.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace {

constexpr int SIDE = 6, PLACES = SIDE * SIDE;  // of a transformed tile
constexpr int WIDE = 8;                        // numbers of a vector
constexpr int STEP = 16;                       // output channels that a product takes at a time
constexpr int ROWS = 6;                        // tiles that it takes at a time: 12 sums, 2 columns and 1 factor in registers

typedef float Vector __attribute__((vector_size(WIDE * sizeof(float))));
typedef float Anywhere __attribute__((vector_size(WIDE * sizeof(float)), aligned(4), may_alias));

inline Vector load(const float *from) { return *reinterpret_cast<const Anywhere *>(from); }
inline void store(Vector value, float *to) { *reinterpret_cast<Anywhere *>(to) = value; }

#define INLINE inline __attribute__((always_inline))
#define INLINED __attribute__((always_inline))

// ---- the transforms of a line; two of them, along columns and rows, are that of a tile. Each takes six vectors, the
// first of which count, to six. They are written out: a compiler keeps them in registers then.

struct Line {
  Vector a, b, c, d, e, f;
};

constexpr Vector NONE = {};

// 6 inputs to 6 places
INLINE Line of_input(const Line &x) {
  const Vector even = x.e - 4.0f * x.c, odd = x.d - 4.0f * x.b, near = x.e - x.c, far = 2.0f * (x.d - x.b);
  return {4.0f * x.a + (x.e - 5.0f * x.c), even + odd, even - odd, near + far, near - far,
          4.0f * x.b + (x.f - 5.0f * x.d)};
}

// 6 places to M results
template <int M> INLINE Line to_output(const Line &m) {
  const Vector near = m.b + m.c, far = m.d + m.e, across = m.b - m.c, beyond = m.d - m.e;
  if constexpr (M == 2) return {m.a + near + far, across + 2.0f * beyond + m.f, NONE, NONE, NONE, NONE};
  return {m.a + near + far, across + 2.0f * beyond, near + 4.0f * far, across + 8.0f * beyond + m.f,
          NONE, NONE};
}

// The adjoint of `to_output`: M gradients of results to 6 places.
template <int M> INLINE Line of_gradient(const Line &g) {
  if constexpr (M == 2) {
    const Vector two = 2.0f * g.b;
    return {g.a, g.a + g.b, g.a - g.b, g.a + two, g.a - two, g.b};
  }
  const Vector near = g.a + g.c, across = g.b + g.d, far = g.a + 4.0f * g.c, beyond = 2.0f * g.b + 8.0f * g.d;
  return {g.a, near + across, near - across, far + beyond, far - beyond, g.d};
}

// Filters are weighed at the same points.
constexpr float POINT[SIDE] = {0, 1, -1, 2, -2, 0}, SCALE[SIDE] = {1.0f / 4, -1.0f / 6, -1.0f / 6, 1.0f / 24, 1.0f / 24, 1};

// What tap `tap` of R counts at a place.
constexpr float weight_of(int place, int tap, int taps) {
  if (place == SIDE - 1) return tap == taps - 1 ? 1.0f : 0.0f;
  float power = SCALE[place];
  for (int i = 0; i < tap; ++i) power *= POINT[place];
  return power;
}

// ---- tiles

struct Maps {
  int64_t images, height, width, dilation;
};

// Where tiles begin along one side: every phase of a dilated filter has its own.
inline std::vector<int64_t> starts(int64_t extent, int64_t dilation, int64_t results) {
  std::vector<int64_t> found;
  for (int64_t phase = 0; phase < dilation; ++phase)
    for (int64_t start = phase; start < extent; start += results * dilation) found.push_back(start);
  return found;
}

struct Tiles {
  Maps maps;
  std::vector<int64_t> rows, columns;
  Tiles(const Maps &maps, int results)
      : maps(maps), rows(starts(maps.height, maps.dilation, results)),
        columns(starts(maps.width, maps.dilation, results)) {}
  int64_t count() const { return maps.images * int64_t(rows.size() * columns.size()); }
  struct Place {
    int64_t image, row, column;
  };
  Place at(int64_t tile) const {
    const int64_t wide = columns.size(), high = rows.size();
    return {tile / (wide * high), rows[tile / wide % high], columns[tile % wide]};
  }
};

// Pixels of a map, every `dilation`-th from (row, column) on, at 8 channels; 0 beyond the map.
struct Pixels {
  const float *map;
  const Maps &maps;
  int64_t channels, row, column;
  bool within(int count) const {
    const int64_t reach = (count - 1) * maps.dilation;
    return row >= 0 && column >= 0 && row + reach < maps.height && column + reach < maps.width;
  }
  Vector inside(int i, int j) const {
    return load(map + ((row + i * maps.dilation) * maps.width + column + j * maps.dilation) * channels);
  }
  Vector anywhere(int i, int j) const {
    const int64_t r = row + i * maps.dilation, c = column + j * maps.dilation;
    return r >= 0 && c >= 0 && r < maps.height && c < maps.width ? inside(i, j) : Vector{};
  }
};

// Transforms COUNT x COUNT pixels, get(row, column), to 36 places, `plane` numbers from one to the next.
template <int COUNT, class Get, class Transform>
INLINE void transform_tile(Get get, Transform transform, int64_t plane, float *to) {
  Line lines[SIDE];  // columns of the tile, transformed
  for (int j = 0; j < COUNT; ++j) {
    constexpr int third = COUNT > 2 ? 2 : 0, fourth = COUNT > 2 ? 3 : 0, fifth = COUNT > 4 ? 4 : 0, last = COUNT - 1;
    lines[j] = transform(Line{get(0, j), get(1, j), get(third, j), get(fourth, j), get(fifth, j), get(last, j)});
  }
#define ROW(PART)                                                                                                     \
  {                                                                                                                   \
    const Line &third = lines[COUNT > 2 ? 2 : 0], &fourth = lines[COUNT > 2 ? 3 : 0];                                 \
    const Line &fifth = lines[COUNT > 4 ? 4 : 0], &last = lines[COUNT - 1];                                           \
    const Line done =                                                                                                 \
        transform(Line{lines[0].PART, lines[1].PART, third.PART, fourth.PART, fifth.PART, last.PART});                \
    store(done.a, to), to += plane, store(done.b, to), to += plane, store(done.c, to), to += plane;                   \
    store(done.d, to), to += plane, store(done.e, to), to += plane, store(done.f, to), to += plane;                   \
  }
  ROW(a) ROW(b) ROW(c) ROW(d) ROW(e) ROW(f)
#undef ROW
}

// A tile of inputs, transformed, for all its channels: place p at to + p * plane.
template <int M>
void put_input(const float *x, const Maps &maps, int64_t channels, Tiles::Place at, int64_t plane, float *to) {
  const int64_t before = (SIDE - M) / 2 * maps.dilation;
  Pixels from{x + at.image * maps.height * maps.width * channels, maps, channels, at.row - before, at.column - before};
  const bool within = from.within(SIDE);
  for (int64_t c = 0; c < channels; c += WIDE, from.map += WIDE)
    if (within)
      transform_tile<SIDE>([&](int i, int j) INLINED { return from.inside(i, j); }, of_input, plane, to + c);
    else
      transform_tile<SIDE>([&](int i, int j) { return from.anywhere(i, j); }, of_input, plane, to + c);
}

// A tile of gradients of results, transformed, for `count` channels from the first one on.
template <int M>
void put_gradient(const float *g, const Maps &maps, int64_t channels, int64_t first, int64_t count, Tiles::Place at,
                  int64_t plane, float *to) {
  Pixels from{g + at.image * maps.height * maps.width * channels + first, maps, channels, at.row, at.column};
  const bool within = from.within(M);
  for (int64_t c = 0; c < count; c += WIDE, from.map += WIDE)
    if (within)
      transform_tile<M>([&](int i, int j) INLINED { return from.inside(i, j); }, of_gradient<M>, plane, to + c);
    else
      transform_tile<M>([&](int i, int j) { return from.anywhere(i, j); }, of_gradient<M>, plane, to + c);
}

constexpr int OUT_PLANE = ROWS * STEP;  // numbers from one place to the next, of ROWS tiles

// STEP channels of a tile of results, transformed back.
template <int M>
void take_output(const float *from, const Maps &maps, int64_t channels, Tiles::Place at, const float *bias, bool cut,
                 float *y) {
  const int64_t d = maps.dilation, right = d * channels, below = d * maps.width * channels;
  const int high = int(std::min<int64_t>(M, (maps.height - at.row + d - 1) / d));
  const int wide = int(std::min<int64_t>(M, (maps.width - at.column + d - 1) / d));
  float *map = y + ((at.image * maps.height + at.row) * maps.width + at.column) * channels;
  for (int c = 0; c < STEP; c += WIDE, from += WIDE, map += WIDE) {
    Line lines[SIDE];  // columns of the tile, transformed back
    for (int j = 0; j < SIDE; ++j) {
      const float *column = from + j * OUT_PLANE;
      constexpr int down = SIDE * OUT_PLANE;
      lines[j] = to_output<M>(Line{load(column), load(column + down), load(column + 2 * down), load(column + 3 * down),
                                   load(column + 4 * down), load(column + 5 * down)});
    }
    const Vector more = bias ? load(bias + c) : Vector{};
    const auto put = [&](Vector value, float *to, bool within) INLINED {
      value += more;
      if (cut) value = ((value > 0) | (value != value)) ? value : NONE;  // what is not a number stays visible
      if (within) store(value, to);
    };
#define ROW(I, PART)                                                                                                  \
  if (I < high) {                                                                                                     \
    const Line done = to_output<M>(                                                                                   \
        Line{lines[0].PART, lines[1].PART, lines[2].PART, lines[3].PART, lines[4].PART, lines[5].PART});              \
    float *to = map + I * below;                                                                                      \
    put(done.a, to, true), put(done.b, to + right, wide > 1);                                                         \
    if constexpr (M == 4) put(done.c, to + 2 * right, wide > 2), put(done.d, to + 3 * right, wide > 3);               \
  }
    ROW(0, a) ROW(1, b)
    if constexpr (M == 4) { ROW(2, c) ROW(3, d) }
#undef ROW
  }
}

// ---- products

// Sums are variables of their own, since a compiler keeps an array of them in memory.
#define SIX(X) X(0) X(1) X(2) X(3) X(4) X(5)

// result[ROWS][STEP] = v[ROWS][depth] u[depth][STEP]; rows of the result are `step` numbers apart; finish(sum, half)
template <class F>
INLINE void product(const float *v, const float *u, int64_t depth, float *result, int64_t step, F finish) {
#define X(R) Vector left##R = {}, right##R = {};
  SIX(X)
#undef X
  for (int64_t k = 0; k < depth; ++k) {
    const Vector left = load(u + k * STEP), right = load(u + k * STEP + WIDE);
#define X(R) left##R += v[R * depth + k] * left, right##R += v[R * depth + k] * right;
    SIX(X)
#undef X
  }
#define X(R) store(finish(left##R, 0), result + R * step), store(finish(right##R, 1), result + R * step + WIDE);
  SIX(X)
#undef X
}

// total[LINES][STEP] += sum over tiles of v[tile][LINES] w[tile][STEP]; 5 or 6 lines
template <int LINES>
INLINE void outer_product(const float *v, int64_t v_step, const float *w, int64_t w_step, int64_t tiles, float *total,
                          int64_t total_step) {
#define X(R) Vector left##R = {}, right##R = {};
  SIX(X)
#undef X
  for (int64_t t = 0; t < tiles; ++t, v += v_step, w += w_step) {
    const Vector left = load(w), right = load(w + WIDE);
#define X(R) if constexpr (R < LINES) left##R += v[R] * left, right##R += v[R] * right;
    SIX(X)
#undef X
  }
#define X(R)                                                                                                          \
  if constexpr (R < LINES) {                                                                                          \
    float *row = total + R * total_step;                                                                              \
    store(load(row) + left##R, row), store(load(row + WIDE) + right##R, row + WIDE);                                  \
  }
  SIX(X)
#undef X
}

// The same for all `inputs` channels of v, which fives and sixes make up.
inline void outer_products(const float *v, int64_t inputs, const float *w, int64_t w_step, int64_t tiles, float *total,
                           int64_t total_step) {
  for (int64_t i = 0, left = (inputs + 5) / 6; left > 0; --left)
    if (inputs - i > 5 * left) {
      outer_product<6>(v + i, inputs, w, w_step, tiles, total + i * total_step, total_step);
      i += 6;
    } else {
      outer_product<5>(v + i, inputs, w, w_step, tiles, total + i * total_step, total_step);
      i += 5;
    }
}

using Buffer = std::unique_ptr<float[]>;
inline Buffer buffer(int64_t size) { return Buffer(new float[size]); }  // not set to 0
constexpr int64_t APART = 16;  // numbers between planes, so that planes do not share lines of the cache

// Tiles of a block, so that what is transformed stays in the second cache while filters are read again for each block.
inline int64_t block_of(int64_t channels) {
  constexpr int64_t bytes = 384 << 10;
  const int64_t fit = bytes / (PLACES * 4 * channels) / ROWS * ROWS;
  return std::clamp<int64_t>(fit, channels > 64 ? 48 : 24, 96);
}

// The filter at all places: weight[taps][taps][inputs][outputs] to u[outputs / STEP][PLACES][inputs][STEP].
template <int TAPS>
void put_filter(const float *weight, int64_t inputs, int64_t outputs, int threads, float *u) {
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, outputs / STEP))) schedule(static)
  for (int64_t first = 0; first < outputs; first += STEP)
    for (int64_t i = 0; i < inputs; ++i)
      for (int c = 0; c < STEP; c += WIDE) {
        Vector lines[SIDE][TAPS] = {};
        for (int s = 0; s < TAPS; ++s)
          for (int t = 0; t < TAPS; ++t) {
            const Vector tap = load(weight + ((s * TAPS + t) * inputs + i) * outputs + first + c);
            for (int p = 0; p < SIDE; ++p) lines[p][t] += weight_of(p, s, TAPS) * tap;
          }
        for (int p = 0; p < SIDE; ++p)
          for (int q = 0; q < SIDE; ++q) {
            Vector sum = {};
            for (int t = 0; t < TAPS; ++t) sum += weight_of(q, t, TAPS) * lines[p][t];
            store(sum, u + ((first / STEP * PLACES + p * SIDE + q) * inputs + i) * STEP + c);
          }
      }
}

// Its adjoint, for `count` of the outputs from the first one on: from[PLACES][inputs][count] to weight.
template <int TAPS>
void take_filter(const float *from, int64_t inputs, int64_t outputs, int64_t first, int64_t count, float *weight) {
  for (int64_t i = 0; i < inputs; ++i)
    for (int64_t c = 0; c < count; c += WIDE) {
      Vector lines[SIDE][TAPS] = {};
      for (int p = 0; p < SIDE; ++p)
        for (int q = 0; q < SIDE; ++q) {
          const Vector value = load(from + ((p * SIDE + q) * inputs + i) * count + c);
          for (int t = 0; t < TAPS; ++t) lines[p][t] += weight_of(q, t, TAPS) * value;
        }
      for (int s = 0; s < TAPS; ++s)
        for (int t = 0; t < TAPS; ++t) {
          Vector sum = {};
          for (int p = 0; p < SIDE; ++p) sum += weight_of(p, s, TAPS) * lines[p][t];
          store(sum, weight + ((s * TAPS + t) * inputs + i) * outputs + first + c);
        }
    }
}

template <int M>
void convolve(const float *x, const Maps &maps, int64_t inputs, int64_t outputs, int threads, const float *weight,
              const float *bias, bool cut, float *y) {
  const Tiles tiles(maps, M);
  const Buffer u = buffer(outputs * PLACES * inputs);
  put_filter<SIDE + 1 - M>(weight, inputs, outputs, threads, u.get());
  const int64_t block = block_of(inputs), blocks = (tiles.count() + block - 1) / block;
  const int64_t plane = block * inputs + APART, group = PLACES * OUT_PLANE;
#pragma omp parallel num_threads(int(std::min<int64_t>(threads, blocks)))
  {
    const Buffer v = buffer(PLACES * plane), m = buffer(block / ROWS * group);
    std::vector<Tiles::Place> at(block);
    std::fill(v.get(), v.get() + PLACES * plane, 0.0f);
#pragma omp for schedule(static)
    for (int64_t turn = 0; turn < blocks; ++turn) {
      const int64_t first = turn * block, count = std::min(block, tiles.count() - first);
      for (int64_t t = 0; t < count; ++t) {
        at[t] = tiles.at(first + t);
        put_input<M>(x, maps, inputs, at[t], plane, v.get() + t * inputs);
      }
      for (int64_t o = 0; o < outputs; o += STEP) {
        for (int p = 0; p < PLACES; ++p) {
          const float *of_place = u.get() + (o / STEP * PLACES + p) * inputs * STEP;
          for (int64_t t = 0; t < count; t += ROWS)
            product(v.get() + p * plane + t * inputs, of_place, inputs, m.get() + t / ROWS * group + p * OUT_PLANE, STEP,
                    [](Vector sum, int) INLINED { return sum; });
        }
        for (int64_t t = 0; t < count; ++t)
          take_output<M>(m.get() + t / ROWS * group + t % ROWS * STEP, maps, outputs, at[t], bias ? bias + o : nullptr,
                         cut, y + o);
      }
    }
  }
}

template <int M>
void filter_gradient(const float *x, const float *g, const Maps &maps, int64_t inputs, int64_t outputs, int threads,
                     float *result, float *of_bias) {
  constexpr int taps = SIDE + 1 - M;
  const Tiles tiles(maps, M);
  const int64_t block = 48, blocks = (tiles.count() + block - 1) / block;
  const int64_t part = outputs % 64 ? (outputs < 64 ? outputs : STEP) : 64, parts = outputs / part;
  const int64_t slices = std::clamp<int64_t>(512 / inputs, 1, std::min<int64_t>(8, blocks));  // as memory allows
  const int64_t in_plane = block * inputs + APART, out_plane = block * part + APART;
  const int64_t size = (PLACES * inputs + 1) * part;
  std::vector<float> totals(slices * parts * size);
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, slices * parts))) schedule(dynamic, 1)
  for (int64_t task = 0; task < slices * parts; ++task) {
    const Buffer v = buffer(PLACES * in_plane), w = buffer(PLACES * out_plane);
    const int64_t slice = task / parts, begin = task % parts * part;
    float *total = totals.data() + task * size, *sums = total + PLACES * inputs * part;
    for (int64_t turn = blocks * slice / slices; turn < blocks * (slice + 1) / slices; ++turn) {
      const int64_t first = turn * block, count = std::min(block, tiles.count() - first);
      for (int64_t t = 0; t < count; ++t) {
        const Tiles::Place at = tiles.at(first + t);
        put_input<M>(x, maps, inputs, at, in_plane, v.get() + t * inputs);
        put_gradient<M>(g, maps, outputs, begin, part, at, out_plane, w.get() + t * part);
      }
      const float *at_ones = w.get() + (SIDE + 1) * out_plane;  // at the points (1, 1) a tile's transform is its sum
      for (int64_t t = 0; t < count; ++t)
        for (int64_t o = 0; o < part; ++o) sums[o] += at_ones[t * part + o];
      for (int p = 0; p < PLACES; ++p)
        for (int64_t o = 0; o < part; o += STEP)
          outer_products(v.get() + p * in_plane, inputs, w.get() + p * out_plane + o, part, count,
                         total + p * inputs * part + o, part);
    }
  }
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, parts))) schedule(static)
  for (int64_t part_of = 0; part_of < parts; ++part_of) {
    float *total = totals.data() + part_of * size;
    for (int64_t slice = 1; slice < slices; ++slice)
      for (int64_t i = 0; i < size; ++i) total[i] += total[slice * parts * size + i];
    take_filter<taps>(total, inputs, outputs, part_of * part, part, result);
    std::copy_n(total + PLACES * inputs * part, part, of_bias + part_of * part);
  }
}

// ---- 1x1: the product of channels alone

constexpr int64_t PIXELS = 16 * ROWS;  // that a turn takes

void pointwise(const float *x, int64_t pixels, int64_t inputs, int64_t outputs, int threads, const float *weight,
               const float *bias, bool cut, float *y) {
  const Buffer u = buffer(inputs * outputs);  // [outputs / STEP][inputs][STEP]
  for (int64_t o = 0; o < outputs; o += STEP)
    for (int64_t i = 0; i < inputs; ++i) std::copy_n(weight + i * outputs + o, STEP, u.get() + o * inputs + i * STEP);
  const int64_t blocks = (pixels + PIXELS - 1) / PIXELS;
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, blocks))) schedule(static)
  for (int64_t turn = 0; turn < blocks; ++turn) {
    const int64_t first = turn * PIXELS, end = std::min(first + PIXELS, pixels);
    for (int64_t o = 0; o < outputs; o += STEP) {
      const Vector more[2] = {bias ? load(bias + o) : NONE, bias ? load(bias + o + WIDE) : NONE};
      const auto finish = [&](Vector sum, int half) INLINED {
        sum += more[half];
        return cut ? (((sum > 0) | (sum != sum)) ? sum : NONE) : sum;  // what is not a number stays visible
      };
      int64_t p = first;
      for (; p + ROWS <= end; p += ROWS)
        product(x + p * inputs, u.get() + o * inputs, inputs, y + p * outputs + o, outputs, finish);
      if (p < end) {  // fewer than ROWS pixels are left
        std::vector<float> some(ROWS * inputs), found(ROWS * STEP);
        std::copy_n(x + p * inputs, (end - p) * inputs, some.data());
        product(some.data(), u.get() + o * inputs, inputs, found.data(), STEP, finish);
        for (int64_t r = 0; r < end - p; ++r) std::copy_n(found.data() + r * STEP, STEP, y + (p + r) * outputs + o);
      }
    }
  }
}

void pointwise_gradient(const float *x, const float *g, int64_t pixels, int64_t inputs, int64_t outputs, int threads,
                        float *result, float *of_bias) {
  const int64_t blocks = (pixels + PIXELS - 1) / PIXELS, slices = std::min<int64_t>(8, blocks);
  const int64_t size = (inputs + 1) * outputs;
  std::vector<float> totals(slices * size);
#pragma omp parallel for num_threads(int(std::min<int64_t>(threads, slices))) schedule(dynamic, 1)
  for (int64_t slice = 0; slice < slices; ++slice) {
    float *total = totals.data() + slice * size, *sums = total + inputs * outputs;
    for (int64_t turn = blocks * slice / slices; turn < blocks * (slice + 1) / slices; ++turn) {
      const int64_t first = turn * PIXELS, end = std::min(first + PIXELS, pixels);
      for (int64_t o = 0; o < outputs; o += STEP)
        outer_products(x + first * inputs, inputs, g + first * outputs + o, outputs, end - first, total + o, outputs);
      for (int64_t p = first; p < end; ++p)
        for (int64_t o = 0; o < outputs; ++o) sums[o] += g[p * outputs + o];
    }
  }
  for (int64_t slice = 1; slice < slices; ++slice)
    for (int64_t i = 0; i < size; ++i) totals[i] += totals[slice * size + i];
  std::copy_n(totals.data(), inputs * outputs, result);
  std::copy_n(totals.data() + inputs * outputs, outputs, of_bias);
}

}  // namespace

// y = x * weight + bias, where `cut` cut at 0; weight[taps][taps][inputs][outputs], taps 1, 3 or 5; bias may be null
extern "C" void convolution_forward(const float *x, int64_t images, int64_t height, int64_t width, int64_t dilation,
                                    int64_t taps, int64_t inputs, int64_t outputs, int64_t threads,
                                    const float *weight, const float *bias, int64_t cut, float *y) {
  const Maps maps{images, height, width, dilation};
  if (taps == 1) return pointwise(x, images * height * width, inputs, outputs, int(threads), weight, bias, cut != 0, y);
  (taps == 3 ? convolve<4> : convolve<2>)(x, maps, inputs, outputs, int(threads), weight, bias, cut != 0, y);
}

// The gradients of the weight, laid out like it, and of the bias.
extern "C" void convolution_parameters(const float *x, const float *g, int64_t images, int64_t height, int64_t width,
                                       int64_t dilation, int64_t taps, int64_t inputs, int64_t outputs,
                                       int64_t threads, float *of_weight, float *of_bias) {
  const Maps maps{images, height, width, dilation};
  if (taps == 1)
    return pointwise_gradient(x, g, images * height * width, inputs, outputs, int(threads), of_weight, of_bias);
  (taps == 3 ? filter_gradient<4> : filter_gradient<2>)(x, g, maps, inputs, outputs, int(threads), of_weight, of_bias);
}
