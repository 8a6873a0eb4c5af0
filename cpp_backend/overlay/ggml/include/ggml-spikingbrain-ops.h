#pragma once

// The operators that SpikingBrain adds to ggml, as one list: enum, name, symbol.
// ggml.h, ggml.c and ggml-cpu.c expand it, so that a new operator needs no new patch.

#define GGML_SPK_OPS(X) \
    X(GGML_OP_SPK_GLA,     "SPK_GLA",     "gla(q,k,v,w,state)")  \
    X(GGML_OP_SPK_GLA_UPDATE, "SPK_GLA_UPDATE", "state(k,v,w)")  \
    X(GGML_OP_SPK_SWA,     "SPK_SWA",     "swa(q,K,V)")          \
    X(GGML_OP_SPK_ROPE,    "SPK_ROPE",    "rope(x,table)")       \
    X(GGML_OP_SPK_DECAY,   "SPK_DECAY",   "decay(x,b)")          \
    X(GGML_OP_SPK_STORE,   "SPK_STORE",   "store(ring,x,rows)")  \
    X(GGML_OP_SPK_ENCODE,  "SPK_ENCODE",  "spikes(x)")           \
    X(GGML_OP_SPK_DECODE,  "SPK_DECODE",  "v_th*spikes")         \
    X(GGML_OP_SPK_MUL_MAT, "SPK_MUL_MAT", "W*spikes")            \
    X(GGML_OP_SPK_MUL_MAT_ID, "SPK_MUL_MAT_ID", "W[id]*spikes")  \
    X(GGML_OP_SPK_TOP1,    "SPK_TOP1",    "top1(x)")             \
    X(GGML_OP_SPK_KEY,     "SPK_KEY",     "k,w(z)")

#define GGML_SPK_N_OPS 12

#define GGML_SPK_OP_ENUM(op, name, symbol)   op,
#define GGML_SPK_OP_NAME(op, name, symbol)   name,
#define GGML_SPK_OP_SYMBOL(op, name, symbol) symbol,
#define GGML_SPK_OP_CASE(op, name, symbol)   case op:
