#pragma once

// What the patches of server-context.cpp call, by one line of theirs.

#include "server-adapters.h"
#include "server-checkpoints.h"
#include "server-constraints.h"
#include "server-drafts.h"
#include "server-echo.h"
#include "server-limits.h"
#include "server-lost.h"
#include "server-slot-file.h"
#include "server-spikes.h"
#include "server-stop.h"
#include "server-token-rows.h"
