#pragma once

// What the patches of arg.cpp call, by one line of theirs.

#include "whole-file.h"
#include "whole-number.h"
