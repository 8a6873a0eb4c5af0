// The sums of a tile product: 16 rows times NT tokens, an integer register set (spk_i) per token.
// Over the wrapper included before; NEON has its own (spk-sums-neon.h). Included inside the namespace of the instruction set.

static void (* const pack_batch)(spk_batch_block *, int64_t, const ggml_spk_row *) = nullptr; // rows are read as they are

// PART: which rows of the tile, where the registers do not hold all of them (PARTS > 1)
template <class W, int NT, int PART>
struct spk_sums {
    static constexpr int PARTS = 1;

    spk_i acc[NT];

    struct floats { spk_f v[NT]; };

    SPK_MEMBER static void zero(floats & sum) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            sum.v[t] = f_zero();
        }
    }
    SPK_MEMBER static const ggml_spk_row * operand(const ggml_spk_row * act, const spk_batch_block *) { return act; }

    // a group of N_BLOCK blocks begins, the first is b
    template <int N_BLOCK> SPK_MEMBER void start(const ggml_spk_row * act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            const int32_t bias = row_bias<N_BLOCK>(act[t], b);
            acc[t] = W::OFFSET == 8 ? i_start_4bit(bias) : W::OFFSET == 16 ? i_start_5bit(bias) : i_start_signed(bias);
        }
    }
    // a step of block b: 4 columns
    SPK_MEMBER void dot(int step, spk_w w, const ggml_spk_row * act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            const int8_t * s8 = act[t].s8 + b*32 + step*4;
            W::OFFSET ? i_dot(acc[t], w, s8) : i_dot_signed(acc[t], w, s8);
        }
    }
    // the group ends: scaled and added; block b of the activations has their scale
    template <bool Q8> SPK_MEMBER void add(floats & sum, spk_f scale, const ggml_spk_row * act, int64_t b) {
        SPK_UNROLL for (int t = 0; t < NT; ++t) {
            sum.v[t] = f_fma(i_float(acc[t]), Q8 ? f_scale(scale, act[t].scales[b]) : scale, sum.v[t]);
        }
    }
    // out [NT][SPK_ROWS]
    SPK_MEMBER static void store(float * out, const floats & sum) {
        for (int t = 0; t < NT; ++t) {
            f_store(out + t*SPK_ROWS, sum.v[t]);
        }
    }
};
