package android.app;

import android.content.Context;

public class Notification {
    public static final int FOREGROUND_SERVICE_IMMEDIATE = 1;

    public static class Builder {
        public Builder(Context context, String channelId) {}
        public Builder setForegroundServiceBehavior(int behavior) { return this; }
    }
}
