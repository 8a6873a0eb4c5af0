package android.widget;

public abstract class AdapterView<T extends Adapter> extends android.view.ViewGroup {
    public AdapterView(android.content.Context context, android.util.AttributeSet attributes) { super(context, attributes); }
    public int getSelectedItemPosition() { return 0; }
    public abstract void setSelection(int position);
}
