package android.app;

import android.content.Intent;
import android.os.Bundle;
import android.view.LayoutInflater;
import android.view.Menu;
import android.view.MenuInflater;
import android.view.MenuItem;
import android.view.View;

public class Activity extends android.view.ContextThemeWrapper {
    public static final int RESULT_OK = -1;

    protected void onCreate(Bundle saved) {}
    protected void onStart() {}
    protected void onStop() {}
    protected void onActivityResult(int request, int result, Intent data) {}
    public boolean onCreateOptionsMenu(Menu menu) { return true; }
    public boolean onOptionsItemSelected(MenuItem item) { return true; }
    public void setContentView(int layout) {}
    public <T extends View> T findViewById(int id) { return null; }
    public MenuInflater getMenuInflater() { return null; }
    public LayoutInflater getLayoutInflater() { return null; }
    public final Application getApplication() { return null; }
    public void startActivityForResult(Intent intent, int request) {}
    public final void requestPermissions(String[] permissions, int request) {}
    public final void runOnUiThread(Runnable action) {}
    public void finish() {}
}
