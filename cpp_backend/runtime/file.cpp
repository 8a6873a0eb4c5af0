#include "runtime.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sys/stat.h>

#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

namespace sb {

// a descriptor of the C runtime, which on Windows is Python's, too: the universal one
#ifdef _WIN32
using file_stat = struct _stat64;
static int     stat_of(int fd, file_stat & s) { return _fstat64(fd, &s); }
static bool    is_regular(const file_stat & s) { return (s.st_mode & _S_IFMT) == _S_IFREG; }
static int     twin(int fd)                   { return _dup(fd); }
static int     number_of(FILE * f)            { return _fileno(f); }
static FILE *  opened(int fd)                 { return _fdopen(fd, "rb"); }
static void    close_fd(int fd)               { _close(fd); }
static int64_t seek(int fd, int64_t to, int from) { return _lseeki64(fd, to, from); }
#else
using file_stat = struct stat;
static int     stat_of(int fd, file_stat & s) { return fstat(fd, &s); }
static bool    is_regular(const file_stat & s) { return S_ISREG(s.st_mode); }
static int     twin(int fd)                   { return dup(fd); }
static int     number_of(FILE * f)            { return fileno(f); }
static FILE *  opened(int fd)                 { return fdopen(fd, "rb"); }
static void    close_fd(int fd)               { close(fd); }
static int64_t seek(int fd, int64_t to, int from) { return lseek(fd, to, from); }
#endif

model_file::model_file(int fd) : path_("descriptor " + std::to_string(fd)) {
    file_stat s;
    if (stat_of(fd, s) != 0) {
        throw std::runtime_error(path_ + " is none that can be read: " + strerror(errno));
    }
    if (!is_regular(s)) {
        throw std::runtime_error(path_ + " is no file");
    }
    const int copy = twin(fd); // of the same open file: one position for both
    file_ = copy >= 0 ? opened(copy) : nullptr;
    if (!file_) {
        const std::string why = strerror(errno);
        if (copy >= 0) {
            close_fd(copy);
        }
        throw std::runtime_error(path_ + " is none that can be read: " + why);
    }
    position_ = seek(fd, 0, SEEK_CUR);
}

model_file::~model_file() {
    if (file_) {
        seek(number_of(file_), position_, SEEK_SET);
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
    file_stat s;
    if (file_ && stat_of(number_of(file_), s) == 0) {
        return s.st_size;
    }
    std::error_code error(file_ ? errno : 0, std::generic_category());
    const uint64_t n = file_ ? 0 : std::filesystem::file_size(std::filesystem::u8path(path_), error);
    if (error) {
        throw std::runtime_error(path_ + ": got " + error.message() + ", expected a file; check the path");
    }
    return n;
}

} // namespace sb
