package org.spikingbrain.ktx

import android.content.Context
import android.net.Uri
import org.spikingbrain.AndroidFiles

/** The same of a file that the user chose (ACTION_OPEN_DOCUMENT), without a copy. Errors: those of [AndroidFiles.load]. */
public suspend fun spikingBrain(context: Context, uri: Uri, configure: ModelScope.() -> Unit = {}): SpikingBrainModel {
    val app = context.applicationContext // no Activity is held while it loads
    return load(ModelScope().apply(configure)) { options, progress -> AndroidFiles.load(app, uri, options, progress) }
}
