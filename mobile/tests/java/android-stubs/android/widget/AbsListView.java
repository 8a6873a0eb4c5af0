package android.widget;

public abstract class AbsListView extends AdapterView<ListAdapter> {
    public AbsListView(android.content.Context context, android.util.AttributeSet attributes) { super(context, attributes); }
}
