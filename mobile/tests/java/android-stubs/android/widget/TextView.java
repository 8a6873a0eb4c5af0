package android.widget;

public class TextView extends android.view.View {
    public TextView(android.content.Context context, android.util.AttributeSet attributes) { super(context, attributes); }
    public final void setText(CharSequence text) {}
    public final void setText(int id) {}
    public CharSequence getText() { return null; }
    public void setTypeface(android.graphics.Typeface typeface, int style) {}
}
