// what a program may ask of libgcc's unwinder, by name only: libraries are linked against it, the system's libgcc_s.so.1 has the code
#define NAME(x) void _Unwind_##x(void) {}
NAME(DeleteException) NAME(ForcedUnwind) NAME(GetDataRelBase) NAME(GetGR) NAME(GetIP) NAME(GetLanguageSpecificData) NAME(GetRegionStart) NAME(GetTextRelBase) NAME(RaiseException) NAME(Resume) NAME(SetGR) NAME(SetIP)
NAME(Backtrace) NAME(FindEnclosingFunction) NAME(GetCFA) NAME(Resume_or_Rethrow)
NAME(GetIPInfo)
