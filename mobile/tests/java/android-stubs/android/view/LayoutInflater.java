package android.view;

public abstract class LayoutInflater {
    public View inflate(int layout, ViewGroup parent, boolean attach) { return null; }
}
