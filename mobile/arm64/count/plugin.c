// qemu TCG plugin: counts the guest's instructions, exactly, and tells how many there were at each mark.
// A mark is a system call that no kernel has (MARK); its count goes to stderr as "insns NUMBER".
// The counter is added to once per translation block. One guest thread at a time: the addition is not atomic.
//
// Debian ships no qemu-plugin.h: what is used of it is declared here. Version 1 of the interface (qemu 6.0 to 8.2).

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;
enum { INLINE_ADD_U64 = 0 };

typedef void (*tb_trans_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb * tb);
typedef void (*syscall_cb)(qemu_plugin_id_t id, unsigned int vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
typedef void (*exit_cb)(qemu_plugin_id_t id, void * userdata);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb * tb);
void   qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_trans_cb cb);
void   qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb * tb, int op, void * ptr, uint64_t imm);
void   qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, syscall_cb cb);
void   qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, exit_cb cb, void * userdata);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { MARK = 5350 };

static uint64_t insns;

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb * tb) {
    (void) id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &insns, qemu_plugin_tb_n_insns(tb));
}

static void tell(void) {
    fprintf(stderr, "insns %" PRIu64 "\n", insns);
    fflush(stderr);
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void) id; (void) vcpu; (void) a1; (void) a2; (void) a3; (void) a4; (void) a5; (void) a6; (void) a7; (void) a8;
    if (num == MARK) {
        tell();
    }
}

static void at_exit(qemu_plugin_id_t id, void * userdata) {
    (void) id; (void) userdata;
    tell();
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info * info, int argc, char ** argv) {
    (void) info; (void) argc; (void) argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
