#pragma once

// What is known and measured without a model.

#include "request.h"

json cmd_hello(const request &);             // build, CPU features, instruction set of the spike kernels
json cmd_memory(const request &);            // resident and peak resident; "reset": the peak restarts here
json cmd_read(const request &);              // read of one shared buffer: threads, bytes, chunk, huge, repeat -> GB/s of each repetition
json cmd_spin(const request &);              // fixed arithmetic on every thread: threads, repeat -> seconds of each repetition
