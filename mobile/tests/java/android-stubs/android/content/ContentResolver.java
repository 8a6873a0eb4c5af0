package android.content;

import android.database.Cursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;

import java.io.FileNotFoundException;
import java.io.InputStream;
import java.io.OutputStream;

public abstract class ContentResolver {
    public final void takePersistableUriPermission(Uri uri, int flags) {}
    public final Cursor query(Uri uri, String[] columns, String selection, String[] arguments, String order) { return null; }
    public final InputStream openInputStream(Uri uri) throws FileNotFoundException { return null; }
    public final OutputStream openOutputStream(Uri uri, String mode) throws FileNotFoundException { return null; }
    public final ParcelFileDescriptor openFileDescriptor(Uri uri, String mode) throws FileNotFoundException { return null; }
}
