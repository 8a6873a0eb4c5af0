package android.widget;

public class ListView extends AbsListView {
    public ListView(android.content.Context context, android.util.AttributeSet attributes) { super(context, attributes); }
    public void setAdapter(ListAdapter adapter) {}
    public void setSelection(int position) {}
}
