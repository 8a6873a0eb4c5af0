#include "core.h"

namespace sb {

owned::use::use(const owned & o, const char * what, bool open) : o_(o) {
    if (!open) {
        throw std::runtime_error(std::string(what) + ": got a closed handle, expected an open one; make a new one");
    }
    if (o.foreign()) {
        throw std::runtime_error(std::string(what) + ": got process " + std::to_string(process()) + ", expected " +
            std::to_string(o.pid_) + ", the one that loaded it; load the model in each process, after os.fork");
    }
    if (o.busy_.exchange(true)) {
        throw std::runtime_error(std::string(what) + ": got a second caller, expected one thread at a time; "
            "use a lock or one handle per thread");
    }
}

owned::use::~use() { o_.busy_.store(false); }

} // namespace sb
