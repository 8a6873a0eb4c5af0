package android.view;

import android.content.Context;
import android.content.res.Resources;
import android.graphics.Canvas;
import android.util.AttributeSet;

public class View {
    public View(Context context, AttributeSet attributes) {}
    public void setOnClickListener(OnClickListener listener) {}
    public void setEnabled(boolean on) {}
    public void invalidate() {}
    public Resources getResources() { return null; }
    public final int getWidth() { return 0; }
    public final int getHeight() { return 0; }
    protected void onDraw(Canvas canvas) {}

    public interface OnClickListener {
        void onClick(View view);
    }
}
