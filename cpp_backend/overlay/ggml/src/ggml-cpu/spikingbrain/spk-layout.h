#pragma once

#include "spk-ops.h"

// The interleaved layout: tiles of 16 rows, as many bytes as the rows have, the same on every CPU.
// A step is 4 columns of the 16 rows: byte 4*row + column. 32 columns are 8 steps, a block:
//   I8, Q8_0  512 bytes: steps 0..7
//   Q4_0      256 bytes: step 2i in the low, 2i + 1 in the high nibbles of 64 bytes
//   Q5_0      320 bytes: as Q4_0, then the fifth bits: 8 bytes per step, bit 4*row + column
// A tile is its blocks, then (not for I8) the 16 fp16 scales of each block.

static const int SPK_ROWS = 16;

size_t spk_block_size(ggml_type type); // bytes of a block of 32 columns x 16 rows, without scales
bool   spk_can_interleave(ggml_type type, int64_t n, int64_t m);

// n_rows <= 16 rows of n columns, contiguous, into a tile; missing rows become zeros
void spk_pack_tile(ggml_type type, uint8_t * tile, const uint8_t * rows, int64_t n, int n_rows);

// scales [n_rows][n_groups] into [n_groups][16]
void spk_pack_scales(float * packed, const float * scales, int64_t n_groups, int n_rows);
