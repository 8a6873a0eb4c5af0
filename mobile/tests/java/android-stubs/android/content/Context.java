package android.content;

import android.content.pm.ApplicationInfo;
import android.content.res.Resources;

import java.io.File;

public abstract class Context {
    public static final String ACTIVITY_SERVICE = "activity";

    public final String getString(int id) { return null; }
    public final String getString(int id, Object... arguments) { return null; }
    public final <T> T getSystemService(Class<T> type) { return null; }
    public abstract Object getSystemService(String name);
    public abstract ApplicationInfo getApplicationInfo();
    public abstract ContentResolver getContentResolver();
    public abstract Resources getResources();
    public abstract File getNoBackupFilesDir();
    public abstract int checkSelfPermission(String permission);
    public abstract void startActivity(Intent intent);
    public abstract ComponentName startForegroundService(Intent service);
    public abstract boolean stopService(Intent service);
}
