package android.view;

public abstract class Window {
    public WindowInsetsController getInsetsController() { return null; }
}
