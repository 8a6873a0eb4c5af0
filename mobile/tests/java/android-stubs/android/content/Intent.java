package android.content;

import android.net.Uri;

public class Intent {
    public static final String ACTION_OPEN_DOCUMENT = "";
    public static final String ACTION_CREATE_DOCUMENT = "";
    public static final String CATEGORY_OPENABLE = "";
    public static final String EXTRA_TITLE = "";
    public static final int FLAG_GRANT_READ_URI_PERMISSION = 1;

    public Intent(String action) {}
    public Intent(Context context, Class<?> type) {}
    public Intent addCategory(String category) { return this; }
    public Intent setType(String type) { return this; }
    public Intent setAction(String action) { return this; }
    public Intent putExtra(String name, String value) { return this; }
    public String getAction() { return null; }
    public Uri getData() { return null; }
}
