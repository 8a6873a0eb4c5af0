package android.os;

public class Handler {
    public Handler(Looper looper) {}
    public final boolean post(Runnable what) { return true; }
    public final boolean postDelayed(Runnable what, long delayMs) { return true; }
}
