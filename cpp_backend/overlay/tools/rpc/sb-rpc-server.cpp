// sb-rpc-server: this machine's devices for ggml's RPC backend on another one, in place of llama.cpp's own main (rpc-server.cpp).
// That one takes numbers that are none, ends with 0 where it could not start, and its file cache accepts files that were cut.

#include "ggml-backend.h"
#include "ggml-rpc.h"
#include "ggml-spikingbrain.h"

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace {

struct options {
    std::string              host = "127.0.0.1";
    int                      port = 50052;
    int                      n_threads;
    std::vector<std::string> devices;
};

const char * HELP = R"(usage: sb-rpc-server [-H HOST] [-p PORT] [-t N] [-d DEVICES] | --help | --version

Computes layers of a model that another machine loads: there, sb-cli, sb-server and the others take --rpc HOST:PORT, and Python
Llama(..., rpc_servers="HOST:PORT"). It takes one client at a time, of the same version. It knows no passwords and no encryption, and
who reaches its port can read and write its memory: serve a private network only.

  -H, --host HOST        address to listen on (default: 127.0.0.1, this machine only)
  -p, --port PORT        1 to 65535 (default: 50052)
  -t, --threads N        1 to 512 (default: the CPUs this process may use; macOS: the fast cores)
  -d, --device A,B       devices to serve (default: accelerators, where there are any, else the CPU)
)";

[[noreturn]] void refuse(const std::string & what) {
    throw std::invalid_argument("sb-rpc-server: " + what);
}

int number(const std::string & name, const char * text, int lo, int hi) {
    char *        end   = nullptr;
    const int64_t value = std::strtoll(text, &end, 10);
    if (end == text || *end != '\0' || value < lo || value > hi) {
        refuse(name + ": got '" + text + "', expected " + std::to_string(lo) + " to " + std::to_string(hi));
    }
    return value;
}

int n_cpus() {
#ifdef __linux__
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? std::min(CPU_COUNT(&set), 512) : 1;
#elif defined(__APPLE__)
    int    n    = 1;
    size_t size = sizeof(n);
    if (sysctlbyname("hw.perflevel0.physicalcpu", &n, &size, nullptr, 0) != 0) { // Apple's own, the fast ones
        sysctlbyname("hw.physicalcpu", &n, &size, nullptr, 0);
    }
    return std::clamp(n, 1, 512);
#else
    return std::clamp((int) std::thread::hardware_concurrency(), 1, 512);
#endif
}

std::vector<std::string> split(const std::string & text) {
    std::vector<std::string> parts;
    for (size_t begin = 0, end; begin <= text.size(); begin = end + 1) {
        end = std::min(text.find(',', begin), text.size());
        parts.push_back(text.substr(begin, end - begin));
    }
    return parts;
}

options read_options(int argc, char ** argv) {
    options o;
    o.n_threads = n_cpus();
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "-h" || name == "--help") {
            fputs(HELP, stdout);
            exit(0);
        }
        if (name == "--version") {
            printf("protocol: %d.%d.%d (clients must have the same)\n", RPC_PROTO_MAJOR_VERSION, RPC_PROTO_MINOR_VERSION, RPC_PROTO_PATCH_VERSION);
            exit(0);
        }
        const auto is = [&](const char * a, const char * b) { return name == a || name == b; };
        if (!is("-H", "--host") && !is("-p", "--port") && !is("-t", "--threads") && !is("-d", "--device")) {
            refuse("option: got '" + name + "', expected -H, -p, -t or -d; see --help");
        }
        if (++i == argc) {
            refuse(name + ": got no value, expected one");
        }
        if (is("-H", "--host")) {
            o.host = argv[i];
        } else if (is("-p", "--port")) {
            o.port = number(name, argv[i], 1, 65535);
        } else if (is("-t", "--threads")) {
            o.n_threads = number(name, argv[i], 1, 512);
        } else {
            o.devices = split(argv[i]);
        }
    }
    if (o.host.empty() || o.host.find(':') != std::string::npos) { // clients name it as HOST:PORT
        refuse("--host: got '" + o.host + "', expected a name or an IPv4 address");
    }
    return o;
}

// one of each of our operators
std::vector<ggml_tensor *> own_operators(ggml_context * ctx) {
    ggml_tensor * t = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 32);
    std::vector<ggml_tensor *> ops;
    for (int op = GGML_OP_COUNT - GGML_SPK_N_OPS; op < GGML_OP_COUNT; ++op) {
        ggml_tensor * one = ggml_dup_tensor(ctx, t);
        one->op = (ggml_op) op;
        for (int i = 0; i < 6; ++i) {
            one->src[i] = t;
        }
        ops.push_back(one);
    }
    return ops;
}

// a client cannot ask which operators a device has: all, or it is not served
void check_operators(ggml_backend_dev_t dev) {
    const ggml_init_params params = { 64*ggml_tensor_overhead(), nullptr, true };
    std::unique_ptr<ggml_context, decltype(&ggml_free)> ctx(ggml_init(params), ggml_free);
    for (const ggml_tensor * op : own_operators(ctx.get())) {
        if (!ggml_backend_dev_supports_op(dev, op)) {
            refuse(std::string("--device: got ") + ggml_backend_dev_name(dev) + ", which has no " + ggml_op_name(op->op) + ", expected one with every operator, as CPU");
        }
    }
}

std::vector<ggml_backend_dev_t> find_devices(const options & o) {
    std::vector<ggml_backend_dev_t> found;
    for (const auto & name : o.devices) {
        ggml_backend_dev_t dev = ggml_backend_dev_by_name(name.c_str());
        if (!dev) {
            std::string known;
            for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
                known += std::string(i ? ", " : "") + ggml_backend_dev_name(ggml_backend_dev_get(i));
            }
            refuse("--device: got '" + name + "', expected one of " + known);
        }
        found.push_back(dev);
    }
    for (size_t i = 0; o.devices.empty() && i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU && ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_ACCEL) {
            found.push_back(dev);
        }
    }
    if (ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); found.empty() && cpu) {
        found.push_back(cpu);
    }
    if (found.empty()) {
        refuse("device: got none, expected one; install the package again");
    }
    for (ggml_backend_dev_t dev : found) {
        check_operators(dev);
    }
    return found;
}

int serve(const options & o) {
    ggml_backend_load_all();
    auto devices = find_devices(o);
    ggml_backend_reg_t reg = ggml_backend_reg_by_name("RPC");
    auto * start = reg ? (decltype(ggml_backend_rpc_start_server) *) ggml_backend_reg_get_proc_address(reg, "ggml_backend_rpc_start_server") : nullptr;
    if (!start) {
        refuse("RPC backend: got none, expected one; install the package again");
    }
    if (o.host != "127.0.0.1" && o.host != "localhost") {
        fprintf(stderr, "sb-rpc-server: who reaches %s:%d can read and write this process's memory: serve a private network only\n", o.host.c_str(), o.port);
    }
    start((o.host + ":" + std::to_string(o.port)).c_str(), nullptr, o.n_threads, devices.size(), devices.data());
    return 1; // it says why, and does not return otherwise
}

} // namespace

int main(int argc, char ** argv) {
    std::setlocale(LC_NUMERIC, "C");
    setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
    try {
        return serve(read_options(argc, argv));
    } catch (const std::exception & e) { // what ggml-rpc.cpp asserts of a client, too
        fprintf(stderr, "%s\n", e.what());
        return 1;
    }
}
