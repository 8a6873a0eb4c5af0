#include "spk-isa-common.h"

#ifdef __aarch64__
#include <arm_neon.h>
#endif

namespace {
namespace generic {
#ifdef __aarch64__
#include "spk-simd-neon.h"
#else
#include "spk-simd-scalar.h"
#endif
#include "spk-kernels.h"
}
}

static const spk_isa table = SPK_TABLE(generic);

const spk_isa * spk_isa_generic() { return &table; }
