package android.provider;

public interface OpenableColumns {
    String DISPLAY_NAME = "";
    String SIZE = "";
}
