package android.app;

import android.content.Context;
import android.content.DialogInterface;

public class AlertDialog extends Dialog {
    public static class Builder {
        public Builder(Context context) {}
        public Builder setTitle(int title) { return this; }
        public Builder setMessage(CharSequence message) { return this; }
        public Builder setItems(CharSequence[] items, DialogInterface.OnClickListener listener) { return this; }
        public Builder setPositiveButton(int text, DialogInterface.OnClickListener listener) { return this; }
        public Builder setNegativeButton(int text, DialogInterface.OnClickListener listener) { return this; }
        public Builder setNeutralButton(int text, DialogInterface.OnClickListener listener) { return this; }
        public AlertDialog show() { return null; }
    }
}
