package android.graphics;

public class Paint {
    public static final int ANTI_ALIAS_FLAG = 1;

    public enum Align { LEFT, CENTER, RIGHT }

    public Paint() {}
    public Paint(int flags) {}
    public void setColor(int color) {}
    public void setTextAlign(Align align) {}
    public void setTextSize(float size) {}
    public float getTextSize() { return 0; }
}
