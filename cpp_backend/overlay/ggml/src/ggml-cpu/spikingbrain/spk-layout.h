#pragma once

#include "spk-ops.h"

// The interleaved layout: tiles of 16 rows, as many bytes as the rows have, the same on every CPU.
// A step is 4 columns of the 16 rows: byte 4*row + column. 32 columns are 8 steps, a block:
//   I8, Q8_0  512 bytes: steps 0..7
//   Q4_0      256 bytes: step 2i in the low, 2i + 1 in the high nibbles of 64 bytes; Q4_1, IQ4_NL, IQ4_XS, Q4_K likewise
//   Q5_0      320 bytes: as Q4_0, then the fifth bits: 8 bytes per step, bit 4*row + column; Q5_1 likewise
//   Q5_K      320 bytes: then the fifth bits, of step i in bit i of 64 bytes
//   Q6_K      384 bytes: as Q4_0, then the upper two bits: of step 4i + j in bits 2j of 64 bytes
//   Q2_K      128 bytes: as the upper bits of Q6_K; Q3_K 192 bytes: then the third bits, as Q5_K's fifth
// A tile is its blocks, for all but I8 with the 16 fp16 scales of each (Q4_1, Q5_1: then 16 minima): two blocks, then the scales of both, so that a tile
// is read from its first byte to its last, in whole cache lines; an odd last block has its own behind it. (Scales beyond all blocks: 16 instead of
// 28 GB/s on one Zen 4 thread for rows of 2048.)
// Superblocks: of 256 columns the scales, then 8 blocks. First fp16 d of 16 rows, and dmin where there are minima. Q2_K, Q6_K: of each 16 columns a byte of
// each row, scale and minimum or scale. Others: two numbers of 6 bits of each block, scale and minimum, of Q3_K both halves' scales, of IQ4_XS the
// scales of each two blocks: the lower 4 bits of 16 rows, the second's in the high nibbles; of each two pairs the upper bits, 2 each: both of the first, both
// of the second.

static const int SPK_ROWS = 16;

static const int SPK_SUPER = GGML_SPK_SUPERBLOCK/32; // blocks that share d

// what codes of IQ4_NL and IQ4_XS stand for (llama.cpp's kvalues_iq4nl)
static const int8_t SPK_VALUES[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

size_t spk_block_size(ggml_type type); // bytes of a block of 32 columns x 16 rows, without scales

// where block b of n_block lies in its tile, and its scales; size: of a block, scales: bytes of a block's scales
static inline int64_t spk_block_at (int64_t b, int64_t size, int64_t scales) { return b*size + b/2*2*scales; }
static inline int64_t spk_scales_at(int64_t b, int64_t n_block, int64_t size, int64_t scales) {
    const int64_t first = b & ~(int64_t) 1, n = first + 1 < n_block ? 2 : 1;
    return spk_block_at(first, size, scales) + n*size + (b - first)*scales;
}

bool   spk_can_interleave(ggml_type type, int64_t n, int64_t m);

// n_rows <= 16 rows of n columns, contiguous, into a tile; missing rows become zeros
void spk_pack_tile(ggml_type type, uint8_t * tile, const uint8_t * rows, int64_t n, int n_rows);

// scales of I8, which are a tensor of their own: [n_rows][n_groups] into [n_groups][16], and back
void spk_pack_scales  (float * packed, const float * scales, int64_t n_groups, int n_rows);
void spk_unpack_scales(float * scales, const float * packed, int64_t n_groups, int n_rows);
