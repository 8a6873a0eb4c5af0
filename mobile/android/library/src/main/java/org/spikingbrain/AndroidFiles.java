package org.spikingbrain;

import android.app.ActivityManager;
import android.content.Context;
import android.net.Uri;
import android.os.ParcelFileDescriptor;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;

import org.jspecify.annotations.Nullable;

/** All of the library that needs Android; compiled against Android 6's classes alone, and not yet run. */
public final class AndroidFiles {
    private AndroidFiles() {}

    /** Say where this app's CPU libraries lie. Call it before anything else. SpikingBrainException: they are still inside the APK. */
    public static void initialize(Context context) {
        File folder = new File(Check.given("initialize: context", context).getApplicationInfo().nativeLibraryDir);
        String[] found = folder.list((in, name) -> name.startsWith("libggml-cpu-"));
        if (found == null || found.length == 0) {
            throw new SpikingBrainException("init: " + folder + ": got no libggml-cpu-*.so, expected them outside the APK; "
                + "do set packaging.jniLibs.useLegacyPackaging = true in the app");
        }
        SpikingBrain.initialize(folder);
    }

    /** Load a model that the user chose (ACTION_OPEN_DOCUMENT) without a copy. Errors: see {@link SpikingBrain#load(int, ModelOptions)}. */
    public static SpikingBrain load(Context context, Uri uri, ModelOptions options) throws IOException {
        return load(context, uri, options, null);
    }

    /**
     * The same, told how far it is; progress: null: none. Where options name no available memory, it is {@link #availableMemory}. Errors: see
     * {@link SpikingBrain#load(int, ModelOptions, LoadProgress)}.
     */
    public static SpikingBrain load(Context context, Uri uri, ModelOptions options, @Nullable LoadProgress progress) throws IOException {
        ModelOptions o = Check.given("load: options", options).copy();
        initialize(context);
        if (o.availableMemory < 0) {
            o.availableMemory(availableMemory(context));
        }
        try (ParcelFileDescriptor file = open("load", context, uri)) {
            return SpikingBrain.load(file.getFd(), o, progress);
        }
    }

    /** What it would take. Errors: see {@link SpikingBrain#estimate(int, ModelOptions, SessionOptions)}. */
    public static MemoryEstimate estimate(Context context, Uri uri, ModelOptions options, SessionOptions session) throws IOException {
        initialize(context);
        try (ParcelFileDescriptor file = open("estimate", context, uri)) {
            return SpikingBrain.estimate(file.getFd(), options, session);
        }
    }

    /** Bytes that Android says are available before it begins to end other apps; none while it is short of memory. */
    public static long availableMemory(Context context) {
        ActivityManager.MemoryInfo info = new ActivityManager.MemoryInfo();
        ((ActivityManager) Check.given("memory: context", context).getSystemService(Context.ACTIVITY_SERVICE)).getMemoryInfo(info);
        return MemInfo.usable(info.availMem, info.threshold, info.lowMemory);
    }

    private static ParcelFileDescriptor open(String where, Context context, Uri uri) throws FileNotFoundException {
        ParcelFileDescriptor file = context.getContentResolver().openFileDescriptor(Check.given(where + ": uri", uri), "r");
        if (file == null) {
            throw new FileNotFoundException(where + ": " + uri + ": got no file, expected one; choose it anew");
        }
        return file;
    }
}
