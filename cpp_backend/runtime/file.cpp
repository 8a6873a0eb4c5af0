#include "runtime.h"

#include <cerrno>
#include <cstring>
#include <sys/stat.h>
#include <unistd.h>

namespace sb {

model_file::model_file(int fd) : path_("descriptor " + std::to_string(fd)) {
    struct stat s;
    if (fstat(fd, &s) != 0) {
        throw std::runtime_error(path_ + " is none that can be read: " + strerror(errno));
    }
    if (!S_ISREG(s.st_mode)) {
        throw std::runtime_error(path_ + " is no file");
    }
    const int copy = dup(fd); // of the same open file: one position for both
    file_ = copy >= 0 ? fdopen(copy, "rb") : nullptr;
    if (!file_) {
        const std::string why = strerror(errno);
        if (copy >= 0) {
            close(copy);
        }
        throw std::runtime_error(path_ + " is none that can be read: " + why);
    }
    position_ = lseek(fd, 0, SEEK_CUR);
}

model_file::~model_file() {
    if (file_) {
        const int fd = fileno(file_);
        lseek(fd, position_, SEEK_SET);
        fclose(file_);
    }
}

gguf_ptr model_file::header() const {
    const gguf_init_params params = { /*.no_alloc =*/ true, /*.ctx =*/ nullptr };
    if (!file_) {
        return gguf_ptr(gguf_init_from_file(path_.c_str(), params), gguf_free);
    }
    rewind(file_);
    return gguf_ptr(gguf_init_from_file_ptr(file_, params), gguf_free);
}

llama_model * model_file::load(const llama_model_params & params) const {
    if (!file_) {
        return llama_model_load_from_file(path_.c_str(), params);
    }
    if (const auto h = header()) {
        const int64_t id = gguf_find_key(h.get(), "split.count");
        if (id >= 0 && gguf_get_kv_type(h.get(), id) == GGUF_TYPE_UINT16 && gguf_get_val_u16(h.get(), id) > 1) {
            throw std::runtime_error(path_ + " is a part of a split model, which a descriptor cannot be");
        }
    }
    rewind(file_);
    return llama_model_load_from_file_ptr(file_, params); // mapped where asked for: the mapping outlives the FILE
}

uint64_t model_file::size() const {
    struct stat s;
    if (file_ ? fstat(fileno(file_), &s) != 0 : stat(path_.c_str(), &s) != 0) {
        throw std::runtime_error(path_ + ": got " + strerror(errno) + ", expected a file; check the path");
    }
    return s.st_size;
}

} // namespace sb
