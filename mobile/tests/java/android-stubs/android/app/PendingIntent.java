package android.app;

import android.content.Context;
import android.content.Intent;

public final class PendingIntent {
    public static final int FLAG_IMMUTABLE = 1 << 26;

    public static PendingIntent getForegroundService(Context context, int request, Intent intent, int flags) { return null; }
}
