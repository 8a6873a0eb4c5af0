#pragma once

#include "ggml-backend.h"

// Buffer type "CPU_SPK": weights interleaved for SPK_MUL_MAT (spk-layout.h). set_tensor takes rows as they are on disk;
// as with upstream's CPU_REPACK they cannot be read back, and no other operator can use them.
ggml_backend_buffer_type_t spk_buffer_type();
