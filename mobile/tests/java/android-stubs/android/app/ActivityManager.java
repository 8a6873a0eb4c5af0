package android.app;

public class ActivityManager {
    public void getMemoryInfo(MemoryInfo out) {}

    public static class MemoryInfo {
        public long availMem;
        public long threshold;

        public MemoryInfo() {}
    }
}
