package android.content;

public abstract class Context {
    public final <T> T getSystemService(Class<T> type) { return null; }
    public abstract ComponentName startForegroundService(Intent service);
    public abstract int checkSelfPermission(String permission);
}
