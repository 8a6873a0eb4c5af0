package org.spikingbrain;

import android.content.Context;
import android.content.res.AssetManager;

import androidx.test.platform.app.InstrumentationRegistry;

import org.junit.Test;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;

import static org.junit.Assert.assertTrue;

/** On a device: the libraries are found, one for this CPU is chosen, the tiny model answers as it does elsewhere. */
public final class TinyModelTest {
    private final Context context = InstrumentationRegistry.getInstrumentation().getTargetContext();

    @Test
    public void theTinyModelAnswers() throws IOException {
        AndroidFiles.initialize(context);
        File model = new File(context.getCacheDir(), "tiny.gguf");
        AssetManager assets = InstrumentationRegistry.getInstrumentation().getContext().getAssets();
        try (InputStream from = assets.open("tiny.gguf")) {
            Files.copy(from, model.toPath(), StandardCopyOption.REPLACE_EXISTING);
        }
        TinyModel.check(model, context.getCacheDir());
    }

    @Test
    public void licencesAreInTheApp() throws IOException {
        assertTrue(context.getAssets().list("licenses/spikingbrain").length > 3);
    }
}
