#pragma once

// How the fork's programs write a file: the rules of the Python packages (converter/sb_convert/whole.py), in C++.
//   target():  the regular file that a path names, symbolic links followed; a device, a folder, an input, ... is refused
//   files:     begin() gives a name beside the target to write to, commit() puts all of them in place or none;
//              what is not committed is removed, and what a killed process left beside is, too
// An error is a std::invalid_argument where the path is at fault, else a std::runtime_error; what() is one sentence.

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
#else
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace whole_file {

namespace fs = std::filesystem;
using paths  = std::vector<std::string>;

[[noreturn]] inline void refuse(const std::string & where, const std::string & got, const char * expected, const char * what_to_do, const char * what = "output") {
    throw std::invalid_argument(where + ": " + what + ": got " + got + ", expected " + expected + "; do " + what_to_do);
}

// --- what differs between systems ---------------------------------------------------------------------------------

#ifdef _WIN32
// a folder's mark says nothing of what is in it; opening tells the rest
inline bool writable(const fs::path & path) {
    std::error_code err;
    return fs::is_directory(path, err) || _waccess(path.c_str(), 2) == 0;
}

inline int create(const fs::path & path, const fs::path &) {
    const int fd = _wopen(path.c_str(), _O_CREAT | _O_EXCL | _O_RDWR | _O_BINARY | _O_NOINHERIT, _S_IREAD | _S_IWRITE);
    return fd < 0 || _close(fd) != 0 ? -1 : 0;
}

inline void remove_unless_used(const fs::path & path) { std::error_code err; fs::remove(path, err); } // none that is open

inline bool sync(const fs::path & path, int) {
    const int  fd = _wopen(path.c_str(), _O_RDWR | _O_BINARY | _O_NOINHERIT);
    const bool ok = fd >= 0 && _commit(fd) == 0;
    return fd >= 0 && _close(fd) == 0 && ok;
}

inline void sync_folder(const fs::path &) {}
inline void close(int) {}
struct on_signal { explicit on_signal(const std::string &) {} }; // a file that is open stays; the next run removes it (remove_left)
#else
inline bool writable(const fs::path & path) {
    struct stat st;
    return ::access(path.c_str(), W_OK) == 0 && ::stat(path.c_str(), &st) == 0 && (st.st_mode & 0222) != 0;
}

// A new file, locked as long as it is open, with the mode and owner of the file that it will replace; -1: not made.
inline int create(const fs::path & path, const fs::path & old) {
    const int fd = ::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0666);
    struct stat st;
    if (fd < 0) {
        return fd;
    }
    if ((::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) || ::fstat(fd, &st) != 0 || st.st_nlink == 0) {
        ::close(fd); // taken for one that was left, before it was locked
        return -1;
    }
    if (::stat(old.c_str(), &st) == 0) {
        const bool owner = ::fchown(fd, st.st_uid, st.st_gid) == 0; // only root can give it away
        (void) owner;
        ::fchmod(fd, st.st_mode & 0777);
    }
    return fd;
}

// What a killed process left; under its lock, so that nobody can take it meanwhile. A living one holds the lock.
inline void remove_unless_used(const fs::path & path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && ::flock(fd, LOCK_EX | LOCK_NB) == 0) {
        ::unlink(path.c_str());
    }
    ::close(fd);
}

inline bool to_disk(int fd) {
#ifdef F_FULLFSYNC // on macOS fsync leaves it in the disk's memory
    if (::fcntl(fd, F_FULLFSYNC) == 0) {
        return true;
    }
#endif
    return ::fsync(fd) == 0;
}

// Also makes sure that the last bytes came to the disk when a program closed the file without looking: no room for them
// is no room for one byte more.
inline bool sync(const fs::path &, int fd) {
    struct stat st;
    const char  block[4096] = {};
    return ::fstat(fd, &st) == 0 && ::pwrite(fd, block, sizeof(block), st.st_size) == (ssize_t) sizeof(block)
        && ::ftruncate(fd, st.st_size) == 0 && to_disk(fd);
}

inline void sync_folder(const fs::path & path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    ::fsync(fd); // the files are in place, whatever it says
    ::close(fd);
}

inline void close(int fd) { ::close(fd); }

// Removes a file when a signal ends the program (Ctrl-C), as long as this exists. Only where the program has no handler of its own.
class on_signal {
    static constexpr size_t N = 4096; // parts of a split model
    static inline const char * volatile names[N];

    std::string name;
    size_t      at = N;

    static void ended(int sig) {
        for (const auto & one : names) {
            if (one) {
                ::unlink(one);
            }
        }
        ::signal(sig, SIG_DFL);
        ::raise(sig);
    }

public:
    explicit on_signal(const std::string & path) : name(path) {
        for (int sig : { SIGINT, SIGTERM, SIGHUP }) {
            struct sigaction now;
            if (::sigaction(sig, nullptr, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL) {
                ::signal(sig, ended);
            }
        }
        at = std::find(names, names + N, nullptr) - names;
        if (at < N) {
            names[at] = name.c_str();
        }
    }

    on_signal(const on_signal &) = delete;

    ~on_signal() {
        if (at < N) {
            names[at] = nullptr;
        }
    }
};
#endif

// --- the rules ----------------------------------------------------------------------------------------------------

// Where a chain of symbolic links ends; that file need not be there.
inline fs::path followed(const std::string & path) {
    fs::path out = fs::u8path(path);
    std::error_code err;
    for (int n = 0; fs::is_symlink(fs::symlink_status(out, err)); ++n) {
        if (n == 40) {
            refuse(path, "symbolic links in a circle", "a file", "mend the links or choose another name");
        }
        const fs::path next = fs::read_symlink(out, err);
        out = next.is_absolute() ? next : out.parent_path() / next;
    }
    return out;
}

// The files of an input: one, or all parts of a split model.
inline paths parts_of(const std::string & input) {
    const std::string end = "-00001-of-00001.gguf";
    const size_t at = input.size() - end.size();
    if (input.size() <= end.size() || input[at] != '-' || input.compare(at + 6, 4, "-of-") != 0 || input.substr(at + 15) != ".gguf") {
        return { input };
    }
    paths out;
    const int n = std::atoi(input.c_str() + at + 10);
    for (int i = 1; i <= n; ++i) {
        char number[16];
        snprintf(number, sizeof(number), "-%05d", i);
        out.push_back(input.substr(0, at) + number + input.substr(at + 6));
    }
    return out;
}

inline fs::path target(const std::string & path, const paths & inputs) {
    if (path.empty() || path == "-") {
        refuse(path.empty() ? "''" : path, path.empty() ? "no name" : "the name of the standard output", "a file name", "give one (./- for a file called so)");
    }
    std::error_code err;
    const fs::path to = followed(path);
    const fs::file_status status = fs::status(to, err);
    if (fs::is_directory(status) || path.back() == '/' || path.back() == (char) fs::path::preferred_separator) {
        refuse(path, "a folder", "a file name", "add a name to it");
    }
    if (fs::exists(status) && !fs::is_regular_file(status)) {
        refuse(path, "a device, a pipe or a socket", "a regular file", "choose another name");
    }
    if (fs::exists(status) && !writable(to)) {
        refuse(path, "a write-protected file", "one that may be written", "change its mode or choose another name");
    }
    const fs::path folder = to.has_parent_path() ? to.parent_path() : fs::path(".");
    if (!fs::is_directory(folder, err)) {
        refuse(folder.u8string(), "no such folder", "a writable folder", "create it, or choose another", "output folder");
    }
    if (!writable(folder)) {
        refuse(folder.u8string(), "a folder without write permission", "a writable folder", "choose another", "output folder");
    }
    for (const auto & input : inputs) {
        for (const auto & part : parts_of(input)) {
            if (!part.empty() && fs::equivalent(to, fs::u8path(part), err) && !err) {
                refuse(path, "a file that this command reads (" + part + ")", "another file than the inputs", "choose another name");
            }
        }
    }
    return to;
}

// --- writing ------------------------------------------------------------------------------------------------------

class files {
    struct entry {
        fs::path part;
        fs::path to;
        std::string path; // as it was given
        int fd;
        std::unique_ptr<on_signal> left;
    };

    std::vector<entry> begun;

    // .NAME.<12 hexadecimal digits>.partial, as in Python and Java
    static std::string beginning(const fs::path & to) { return "." + to.filename().u8string().substr(0, 200) + "."; }

    static bool is_part(const std::string & name, const std::string & begin) {
        return name.size() == begin.size() + 12 + 8 && name.compare(0, begin.size(), begin) == 0
            && name.find_first_not_of("0123456789abcdef", begin.size()) == begin.size() + 12 && name.substr(begin.size() + 12) == ".partial";
    }

    static void remove_left(const fs::path & folder, const std::string & begin) {
        std::error_code err;
        for (const auto & entry : fs::directory_iterator(folder, err)) {
            if (is_part(entry.path().filename().u8string(), begin) && entry.is_regular_file(err)) {
                remove_unless_used(entry.path());
            }
        }
    }

public:
    files() = default;
    files(const files &) = delete;
    files & operator=(const files &) = delete;
    ~files() { discard(); }

    // The name to write under.
    std::string begin(const std::string & path, const paths & inputs = {}) {
        const fs::path    to     = target(path, inputs);
        const fs::path    folder = to.has_parent_path() ? to.parent_path() : fs::path(".");
        const std::string begin  = beginning(to);
        remove_left(folder, begin);
        std::random_device random;
        for (int attempt = 0; attempt < 100; ++attempt) {
            char digits[16];
            snprintf(digits, sizeof(digits), "%08x%04x", random(), random() & 0xffff);
            const fs::path part = folder / fs::u8path(begin + digits + ".partial");
            auto left = std::make_unique<on_signal>(part.u8string()); // before: a signal may come as soon as the file is there
            const int fd = create(part, to);
            if (fd >= 0) {
                begun.push_back({ part, to, path, fd, std::move(left) });
                return part.u8string();
            }
        }
        throw std::runtime_error(path + ": output: got no file in its folder, expected to make one; do check the folder and the disk");
    }

    // To the disk, then the names; the first file of a split model, by which it is opened, last.
    void commit() {
        for (const auto & entry : begun) {
            if (!sync(entry.part, entry.fd)) {
                discard();
                throw std::runtime_error(entry.path + ": output: got no room on the disk, expected to write it; do make room or choose another folder");
            }
        }
        std::error_code err;
        if (begun.size() > 1) {
            fs::remove(begun.front().to, err); // no old first file over new others
        }
        for (; !begun.empty(); begun.pop_back()) {
            const auto & entry = begun.back();
            fs::rename(entry.part, entry.to, err);
            if (err) {
                const std::string message = entry.path + ": output: got " + err.message() + ", expected to rename " + entry.part.u8string() + "; do check the folder";
                discard();
                throw std::runtime_error(message);
            }
            close(entry.fd);
            sync_folder(entry.to.has_parent_path() ? entry.to.parent_path() : fs::path("."));
        }
    }

    void discard() {
        std::error_code err;
        for (const auto & entry : begun) {
            fs::remove(entry.part, err);
            close(entry.fd);
        }
        begun.clear();
    }
};

// --- programs -----------------------------------------------------------------------------------------------------

// The files of a program without error handling of its own: an exception ends it with its sentence and 1, and nothing is left.
inline files & of_program() {
    static files all;
    static const bool set = std::set_terminate([] {
        all.discard();
        try {
            if (std::current_exception()) {
                std::rethrow_exception(std::current_exception());
            }
        } catch (const std::exception & e) {
            fprintf(stderr, "\nerror: %s\n", e.what());
        } catch (...) {
        }
        std::_Exit(1);
    }) != nullptr;
    (void) set;
    return all;
}

// The log is opened after all arguments are known.
inline std::string & log_name() {
    static std::string name;
    return name;
}

// The files that llama.cpp's common parameters name to be read.
template <typename params_t>
paths inputs_of(const params_t & params) {
    paths inputs = { params.model.path, params.prompt_file, params.speculative.draft.mparams.path, params.mmproj.path };
    inputs.insert(inputs.end(), params.in_files.begin(), params.in_files.end());
    for (const auto & adapter : params.lora_adapters) {
        inputs.push_back(adapter.path);
    }
    for (const auto & vector : params.control_vectors) {
        inputs.push_back(vector.fname);
    }
    return inputs;
}

// What a program writes by them, checked before it begins. Logs are streams: a terminal or a pipe may be one, an input may not.
// Returns whether there is a log to open.
template <typename params_t>
bool check(const params_t & params) {
    paths inputs = inputs_of(params);
    paths outputs;
    if (!params.out_file.empty() && !params.show_statistics) {
        outputs.push_back(params.out_file);
    }
    if (!params.path_prompt_cache.empty()) {
        (params.prompt_cache_ro ? inputs : outputs).push_back(params.path_prompt_cache);
    }
    if (!params.logits_file.empty()) {
        (params.kl_divergence ? inputs : outputs).push_back(params.logits_file);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
        target(outputs[i], inputs);
        inputs.push_back(outputs[i]); // nor two outputs in one file
    }
    std::error_code err;
    const std::string & log = log_name();
    if (!log.empty() && (log == "-" || !fs::exists(fs::u8path(log), err) || fs::is_directory(fs::u8path(log), err) || fs::is_regular_file(fs::u8path(log), err))) {
        target(log, inputs);
    }
    return !log_name().empty();
}

} // namespace whole_file
