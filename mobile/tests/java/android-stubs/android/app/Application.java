package android.app;

import android.content.ComponentCallbacks2;

public class Application extends android.content.ContextWrapper implements ComponentCallbacks2 {
    public void onCreate() {}
    public void onTrimMemory(int level) {}
    public void onLowMemory() {}
}
