package android.widget;

import android.view.View;
import android.view.ViewGroup;

public abstract class BaseAdapter implements ListAdapter, SpinnerAdapter {
    public void notifyDataSetChanged() {}
}
