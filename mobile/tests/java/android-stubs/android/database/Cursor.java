package android.database;

public interface Cursor extends java.io.Closeable {
    boolean moveToFirst();
    boolean isNull(int column);
    String getString(int column);
    long getLong(int column);
    void close();
}
