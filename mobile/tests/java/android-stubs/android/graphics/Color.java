package android.graphics;

public class Color {
    public static final int GRAY = 0xFF888888;

    public static int rgb(int red, int green, int blue) { return 0; }
}
