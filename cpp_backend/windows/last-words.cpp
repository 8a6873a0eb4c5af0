// llama.cpp's log is written by a thread of its own. What llama-common.dll asks to be done at exit is done when Windows has ended all threads,
// and the log's last lines are lost; what the program itself asks for is done before.

#include "log.h"

namespace {

struct last_words {
    ~last_words() { common_log_pause(common_log_main()); } // writes what is left, then ends the thread
} at_exit;

} // namespace
