package android.widget;

public abstract class CompoundButton extends Button {
    public CompoundButton(android.content.Context context, android.util.AttributeSet attributes) { super(context, attributes); }
    public boolean isChecked() { return false; }
    public void setChecked(boolean on) {}
}
