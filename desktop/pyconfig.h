// What CPython's headers ask of the system, for modules of its 64-bit builds for Windows (Debian's pyconfig.h is Linux'). Not CPython's own file:
// the facts of that binary interface that its public headers look at, for compilers with GCC's extensions.
#pragma once

#include <io.h>
#include <stdio.h>

#define MS_WINDOWS 1
#define MS_WIN32 1
#define MS_WIN64 1
#define PLATFORM "win32"
#define COMPILER "[clang]"
#define PYD_PLATFORM_TAG "win_amd64"

#define WITH_THREAD 1
#define NT_THREADS 1
#define Py_ENABLE_SHARED 1 // in python313.dll
#define MS_COREDLL 1
#define HAVE_DECLSPEC_DLL 1

#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_FLOAT 4
#define SIZEOF_DOUBLE 8
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_TIME_T 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_OFF_T 4
#define SIZEOF_FPOS_T 8
#define SIZEOF_PID_T 4
#define ALIGNOF_LONG 4
#define ALIGNOF_SIZE_T 8
#define ALIGNOF_MAX_ALIGN_T 8

#define HAVE_SSIZE_T 1
#define HAVE_WCHAR_H 1
#define HAVE_STDDEF_H 1
#define HAVE_STDINT_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_ERRNO_H 1
#define HAVE_IO_H 1
#define STDC_HEADERS 1
