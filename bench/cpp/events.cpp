// Event-driven decoding: a Q4_0 product of spike counts over a layout by input channel, in which a silent channel's line is not read.
// Not shipped: bench/README.md says at which share of silent channels it would win.
//
// A tile is 128 rows x all channels, block by block of 32 channels: 128 scales (half precision), then the codes, 64 bytes a channel.
// group 1: the line of channel c holds in byte i the code of row i (low nibble) and of row i + 64.
// group 4, 8: four channels lie together in four lines; dword r of line j holds in its bytes the four channels of row 32j + r (low
// nibbles) and of row 32j + 16 + r. A group is skipped where its 4 or 8 channels are all silent.
//
//   y[row] = threshold * sum over blocks of scale[row, block] * sum over its channels of count[c] * (code[row, c] - 8)

#include "events.h"

#include "engine.h"
#include "threads.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace {

constexpr int ROWS = 128, BLOCK = 32, LINE = 64, SCALES = 2*ROWS, BLOCK_BYTES = SCALES + BLOCK*LINE;

// --- vectors: the bytes of a line, dot products of four with four counts, and what is the same by hand

#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
constexpr int WIDTH = 64;
using bytes = __m512i;
using ints  = __m512i;
bytes load(const uint8_t * p)          { return _mm512_loadu_si512(p); }
bytes low(bytes v)                     { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
bytes high(bytes v)                    { return low(_mm512_srli_epi16(v, 4)); }
bytes zip8(bytes a, bytes b, bool hi)  { return hi ? _mm512_unpackhi_epi8(a, b) : _mm512_unpacklo_epi8(a, b); }
bytes zip16(bytes a, bytes b, bool hi) { return hi ? _mm512_unpackhi_epi16(a, b) : _mm512_unpacklo_epi16(a, b); }
bytes four(uint32_t counts)            { return _mm512_set1_epi32(counts); }
ints  zero()                           { return _mm512_setzero_si512(); }
ints  dot(ints acc, bytes u, bytes s)  { return _mm512_dpbusd_epi32(acc, u, s); }
// y += scales * (acc - minus), WIDTH/4 of them
void add_scaled(float * y, const ggml_fp16_t * scales, ints acc, int minus) {
    const __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc, _mm512_set1_epi32(minus)));
    _mm512_storeu_ps(y, _mm512_fmadd_ps(v, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) scales)), _mm512_loadu_ps(y)));
}
#elif defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)
constexpr int WIDTH = 32;
using bytes = __m256i;
using ints  = __m256i;
bytes load(const uint8_t * p)          { return _mm256_loadu_si256((const __m256i *) p); }
bytes low(bytes v)                     { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
bytes high(bytes v)                    { return low(_mm256_srli_epi16(v, 4)); }
bytes zip8(bytes a, bytes b, bool hi)  { return hi ? _mm256_unpackhi_epi8(a, b) : _mm256_unpacklo_epi8(a, b); }
bytes zip16(bytes a, bytes b, bool hi) { return hi ? _mm256_unpackhi_epi16(a, b) : _mm256_unpacklo_epi16(a, b); }
bytes four(uint32_t counts)            { return _mm256_set1_epi32(counts); }
ints  zero()                           { return _mm256_setzero_si256(); }
ints  dot(ints acc, bytes u, bytes s)  { return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1))); }
void add_scaled(float * y, const ggml_fp16_t * scales, ints acc, int minus) {
    const __m256 v = _mm256_cvtepi32_ps(_mm256_sub_epi32(acc, _mm256_set1_epi32(minus)));
    _mm256_storeu_ps(y, _mm256_fmadd_ps(v, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) scales)), _mm256_loadu_ps(y)));
}
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr int WIDTH = 16;
using bytes = int8x16_t;
using ints  = int32x4_t;
bytes load(const uint8_t * p)          { return vreinterpretq_s8_u8(vld1q_u8(p)); }
bytes low(bytes v)                     { return vandq_s8(v, vdupq_n_s8(15)); }
bytes high(bytes v)                    { return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(v), 4)); }
bytes zip8(bytes a, bytes b, bool hi)  { return hi ? vzip2q_s8(a, b) : vzip1q_s8(a, b); }
bytes zip16(bytes a, bytes b, bool hi) {
    const int16x8_t x = vreinterpretq_s16_s8(a), y = vreinterpretq_s16_s8(b);
    return vreinterpretq_s8_s16(hi ? vzip2q_s16(x, y) : vzip1q_s16(x, y));
}
bytes four(uint32_t counts)            { return vreinterpretq_s8_u32(vdupq_n_u32(counts)); }
ints  zero()                           { return vdupq_n_s32(0); }
ints  dot(ints acc, bytes u, bytes s)  { return vdotq_s32(acc, u, s); }
void add_scaled(float * y, const ggml_fp16_t * scales, ints acc, int minus) {
    const float32x4_t v = vcvtq_f32_s32(vsubq_s32(acc, vdupq_n_s32(minus)));
    vst1q_f32(y, vfmaq_f32(vld1q_f32(y), v, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(scales)))));
}
#else
constexpr int WIDTH = 16;
struct bytes { uint8_t v[16]; };
struct ints  { int32_t v[4]; };
bytes load(const uint8_t * p) { bytes o; memcpy(o.v, p, 16); return o; }
bytes low(bytes a)            { for (auto & x : a.v) { x &= 15; } return a; }
bytes high(bytes a)           { for (auto & x : a.v) { x >>= 4; } return a; }
bytes zip8(bytes a, bytes b, bool hi)  { bytes o; for (int i = 0; i < 16; ++i) { o.v[i] = (i & 1 ? b : a).v[8*hi + i/2]; } return o; }
bytes zip16(bytes a, bytes b, bool hi) { bytes o; for (int i = 0; i < 16; ++i) { o.v[i] = (i & 2 ? b : a).v[8*hi + i/4*2 + i%2]; } return o; }
bytes four(uint32_t counts)   { bytes o; for (int i = 0; i < 4; ++i) { memcpy(o.v + 4*i, &counts, 4); } return o; }
ints  zero()                  { return {}; }
ints  dot(ints acc, bytes u, bytes s) { for (int i = 0; i < 16; ++i) { acc.v[i/4] += u.v[i]*(int8_t) s.v[i]; } return acc; }
void add_scaled(float * y, const ggml_fp16_t * scales, ints acc, int minus) {
    for (int i = 0; i < 4; ++i) {
        y[i] += ggml_fp16_to_fp32(scales[i])*(acc.v[i] - minus);
    }
}
#endif

constexpr int LANES = WIDTH/4, PARTS = LINE/WIDTH, LANE16 = WIDTH/16;

// the row of each of a tile's 128 sums, in the order in which the kernels have them
int row_of(int at, int group) {
    const int part = at/(8*LANES), k = at/LANES%8, lane = at%LANES; // one of PARTS, of 8 sums, of LANES
    if (group == 1) { // zip leaves four rows of each 16 bytes in a vector
        return 64*(k/4) + 16*(part*LANE16 + lane/4) + 4*(k%4) + lane%4;
    }
    return 32*(k/2) + 16*(k%2) + part*LANES + lane;
}

// --- what fires

struct item { uint32_t counts, lines[4]; }; // four channels, and where in a tile their lines begin

struct events {
    std::vector<item> items;
    std::vector<int>  ends, sums; // of each block: items up to its last one, sum of its counts

    events(const int8_t * counts, int n, int group) {
        for (int block = 0; block < n/BLOCK; ++block) {
            const int8_t * c = counts + block*BLOCK;
            const uint32_t codes = block*BLOCK_BYTES + SCALES;
            int sum = 0, held = 0;
            for (int i = 0; i < BLOCK; ++i) {
                sum += c[i];
            }
            if (group == 1) {
                for (int i = 0; i < BLOCK; ++i) {
                    if (c[i]) {
                        if (held++ % 4 == 0) { // lines without a count of their own are read once more, and count nothing
                            items.push_back({ 0, { codes + i*LINE, codes + i*LINE, codes + i*LINE, codes + i*LINE } });
                        }
                        set(items.back(), (held - 1)%4, c[i], codes + i*LINE);
                    }
                }
            } else {
                for (int i = 0; i < BLOCK; i += group) {
                    if (std::any_of(c + i, c + i + group, [](int8_t s) { return s != 0; })) {
                        for (int j = i; j < i + group; j += 4) {
                            items.push_back({ 0, { 0, 0, 0, 0 } });
                            for (int k = 0; k < 4; ++k) {
                                set(items.back(), k, c[j + k], codes + (j + k)*LINE);
                            }
                        }
                    }
                }
            }
            ends.push_back(items.size());
            sums.push_back(sum);
        }
    }

    static void set(item & to, int k, int8_t count, uint32_t line) {
        to.counts |= (uint32_t) (uint8_t) count << 8*k;
        to.lines[k] = line;
    }
};

// --- the kernels

template <bool GATHER> void add_item(ints acc[8], const uint8_t * tile, const item & it, int part) {
    const bytes s = four(it.counts);
    bytes v[4];
    for (int k = 0; k < 4; ++k) {
        v[k] = load(tile + it.lines[k] + part*WIDTH);
    }
    if (GATHER) {
        const bytes ab0 = zip8(v[0], v[1], false), ab1 = zip8(v[0], v[1], true), cd0 = zip8(v[2], v[3], false), cd1 = zip8(v[2], v[3], true);
        v[0] = zip16(ab0, cd0, false);
        v[1] = zip16(ab0, cd0, true);
        v[2] = zip16(ab1, cd1, false);
        v[3] = zip16(ab1, cd1, true);
        for (int k = 0; k < 4; ++k) {
            acc[k]     = dot(acc[k],     low(v[k]),  s);
            acc[4 + k] = dot(acc[4 + k], high(v[k]), s);
        }
    } else {
        for (int k = 0; k < 4; ++k) {
            acc[2*k]     = dot(acc[2*k],     low(v[k]),  s);
            acc[2*k + 1] = dot(acc[2*k + 1], high(v[k]), s);
        }
    }
}

constexpr int AHEAD = 8; // items whose lines are asked for before they are needed

template <bool GATHER> void tile_product(float * sums, const uint8_t * tile, size_t tile_bytes, const events & e) {
    std::fill_n(sums, ROWS, 0.0f);
    const int n_items = e.items.size();
    int at = 0;
    for (size_t block = 0; block < e.ends.size(); ++block) {
        if (at == e.ends[block]) {
            continue; // not even the scales
        }
        const auto * scales = (const ggml_fp16_t *) (tile + block*BLOCK_BYTES);
        for (int part = 0; part < PARTS; ++part) {
            ints acc[8];
            std::fill_n(acc, 8, zero());
            for (int i = at; i < e.ends[block]; ++i) {
                if (part == 0) {
                    const bool next = i + AHEAD >= n_items; // of the tile behind this one
                    const item & far = e.items[next ? (i + AHEAD)%n_items : i + AHEAD];
                    for (uint32_t line : far.lines) {
                        __builtin_prefetch(tile + (next ? tile_bytes : 0) + line);
                    }
                }
                add_item<GATHER>(acc, tile, e.items[i], part);
            }
            for (int k = 0; k < 8; ++k) {
                const int first = (part*8 + k)*LANES;
                add_scaled(sums + first, scales + first, acc[k], 8*e.sums[block]);
            }
        }
        at = e.ends[block];
    }
}

} // namespace

struct event_bench::weights {
    int n = 0, m = 0, count = 0, group = 1; // [n channels, m rows], how many of them, channels that are skipped together
    std::vector<int8_t> spikes;
    ggml_backend_buffer_t buffer = nullptr;
    uint8_t * data = nullptr;
    uint64_t  rng = 3;

    ~weights() { ggml_backend_buffer_free(buffer); }

    size_t tile_bytes() const { return (size_t) n/BLOCK*BLOCK_BYTES; }
    size_t bytes()      const { return tile_bytes()*(m/ROWS)*count; }

    void product(int which, float * y, float threshold) const {
        const events e(spikes.data(), n, group);
        for (int t = 0; t < m/ROWS; ++t) {
            const uint8_t * tile = data + ((size_t) which*(m/ROWS) + t)*tile_bytes();
            float sums[ROWS];
            group == 1 ? tile_product<true>(sums, tile, tile_bytes(), e) : tile_product<false>(sums, tile, tile_bytes(), e);
            for (int i = 0; i < ROWS; ++i) {
                y[t*ROWS + row_of(i, group)] = threshold*sums[i];
            }
        }
    }

    // the same from the layout's definition alone: the largest difference, over the largest sum of magnitudes
    double difference() const {
        std::vector<float> y(m);
        product(0, y.data(), 0.5f);
        int at_of[ROWS];
        for (int i = 0; i < ROWS; ++i) {
            at_of[row_of(i, group)] = i;
        }
        double largest = 0, most = 0;
        for (int row = 0; row < m; ++row) {
            double sum = 0, magnitude = 0;
            for (int c = 0; c < n; ++c) {
                const uint8_t * block = data + row/ROWS*tile_bytes() + (size_t) c/BLOCK*BLOCK_BYTES;
                const double scale = ggml_fp16_to_fp32(((const ggml_fp16_t *) block)[at_of[row%ROWS]]);
                const double term = 0.5*scale*spikes[c]*(code(block + SCALES, row%ROWS, c%BLOCK) - 8);
                sum += term;
                magnitude += std::fabs(term);
            }
            largest = std::max(largest, std::fabs(sum - y[row]));
            most = std::max(most, magnitude);
        }
        return most == 0 ? largest : largest/most;
    }

    int code(const uint8_t * lines, int row, int c) const {
        if (group == 1) {
            return lines[c*LINE + row%64] >> (row < 64 ? 0 : 4) & 15;
        }
        return lines[(c/4*4 + row/32)*LINE + 4*(row%16) + c%4] >> (row/16%2 ? 4 : 0) & 15;
    }
};

event_bench::~event_bench() { close(); }

void event_bench::close() {
    delete w;
    w = nullptr;
}

// in the pages that the shipped kernel's weights lie in
static ggml_backend_buffer_t spike_buffer(size_t size) {
    ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    auto extra = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), "ggml_backend_dev_get_extra_bufts");
    for (auto * buft = extra ? extra(dev) : nullptr; buft && *buft; ++buft) {
        if (strcmp(ggml_backend_buft_name(*buft), "CPU_SPK") == 0) {
            return ggml_backend_buft_alloc_buffer(*buft, size);
        }
    }
    fail("events_build: got no buffer type CPU_SPK, expected that of the fork");
}

json event_bench::build(const request & r) {
    close();
    w = new weights;
    w->n = r.at("n");
    w->m = r.at("m");
    w->count = r.value("count", 1);
    w->group = r.value("group", 1);
    if (w->n < BLOCK || w->n % BLOCK || w->m < ROWS || w->m % ROWS || w->count < 1 || (w->group != 1 && w->group != 4 && w->group != 8)) {
        fail("events_build: got n " + std::to_string(w->n) + ", m " + std::to_string(w->m) + ", group " + std::to_string(w->group) +
             ", expected multiples of 32 and 128, and 1, 4 or 8");
    }
    w->buffer = spike_buffer(w->bytes() + LINE);
    if (!w->buffer) {
        fail("events_build: got no memory, expected " + std::to_string(w->bytes()) + " bytes");
    }
    w->data = (uint8_t *) ggml_backend_buffer_get_base(w->buffer);
    for (size_t i = 0; i < w->bytes(); i += 8) {
        const uint64_t v = rng_next(w->rng);
        memcpy(w->data + i, &v, 8);
    }
    for (size_t block = 0; block < w->bytes(); block += BLOCK_BYTES) {
        for (int i = 0; i < ROWS; ++i) {
            ((ggml_fp16_t *) (w->data + block))[i] = ggml_fp32_to_fp16(0.001f*(1 + (rng_next(w->rng) >> 56)/256.0f));
        }
    }
    return { { "bytes", w->bytes() }, { "ops", 2.0*w->n*w->m*w->count } };
}

// "silent": the share of channels without a spike, drawn from all; of the others one in 512 has a count of 127, the rest 1 to 7, half of them negative
json event_bench::time(const request & r) {
    if (!w) {
        fail("events_time: got no weights, expected some; send 'events_build' first");
    }
    const int n_silent = (int) std::lround(r.at("silent").get<double>()*w->n);
    w->spikes.assign(w->n, 0);
    for (int c = n_silent; c < w->n; ++c) {
        const uint32_t v = rng_next(w->rng) >> 32;
        w->spikes[c] = (v & 512 ? -1 : 1)*((v & 511) ? 1 + (int) (v%7) : 127);
    }
    for (int c = w->n - 1; c > 0; --c) {
        std::swap(w->spikes[c], w->spikes[rng_next(w->rng) % (c + 1)]);
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(allowed_cpus()[0], &set);
    sched_setaffinity(0, sizeof(set), &set);

    const double difference = w->difference();
    std::vector<float> y(w->m);
    std::vector<double> seconds;
    const double n_read = w->group == 1 ? w->n - n_silent : 4.0*events(w->spikes.data(), w->n, w->group).items.size();
    for (int i = 0; i < r.value("runs", 1); ++i) {
        const int repeat = r.value("repeat", 1);
        const double t0 = now();
        for (int k = 0; k < repeat; ++k) {
            for (int which = 0; which < w->count; ++which) {
                w->product(which, y.data(), 1.0f);
            }
        }
        seconds.push_back((now() - t0)/repeat);
    }
    return { { "seconds", seconds }, { "difference", difference }, { "channels_read", n_read/w->n } };
}
