#include "spk-isa-common.h"

#ifdef __aarch64__
#include <arm_neon.h>
#endif

namespace {
namespace generic {
#include "spk-kernels.h"
}
}

static const spk_isa table = SPK_TABLE(generic);

const spk_isa * spk_isa_generic() { return &table; }
