package android.content;

import android.content.pm.ApplicationInfo;
import android.content.res.Resources;

import java.io.File;

public class ContextWrapper extends Context {
    public Object getSystemService(String name) { return null; }
    public ApplicationInfo getApplicationInfo() { return null; }
    public ContentResolver getContentResolver() { return null; }
    public Resources getResources() { return null; }
    public File getNoBackupFilesDir() { return null; }
    public int checkSelfPermission(String permission) { return 0; }
    public void startActivity(Intent intent) {}
    public ComponentName startForegroundService(Intent service) { return null; }
    public boolean stopService(Intent service) { return true; }
}
