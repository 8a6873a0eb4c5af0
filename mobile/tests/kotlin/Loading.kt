package org.spikingbrain.ktx.cases

import java.io.File
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.launch
import org.spikingbrain.SpikingBrain
import org.spikingbrain.ktx.ModelScope
import org.spikingbrain.ktx.load
import org.spikingbrain.ktx.spikingBrain

/** model: how far it is, cancelled on the way, and cancelled too late: nothing stays. */
internal suspend fun loading(file: String) {
    val shares = mutableListOf<Double>()
    spikingBrain(File(file)) { onProgress { shares += it } }.use { say("mapped", mapped(file)) }
    say("last", shares.last())
    say("rising", shares == shares.sorted())
    cancelledAt { begun ->
        load(ModelScope()) { options, progress ->
            SpikingBrain.load(File(file), options) { share ->
                begun.complete(Unit)
                Thread.sleep(20) // a large model
                progress.onProgress(share).also { if (!it) say("stopped_at", share) }
            }
        }
    }
    cancelledAt { begun ->
        spikingBrain(File(file)) {
            onProgress {
                begun.complete(Unit)
                awaitCancellation() // it is loaded long before
            }
        }
    }
    say("callback", failure { spikingBrain(File(file)) { onProgress { error("not this") } } })
    say("left", leaked() + if (mapped(file)) listOf(file) else emptyList())
}

private suspend fun cancelledAt(loading: suspend (CompletableDeferred<Unit>) -> Unit) = coroutineScope {
    val begun = CompletableDeferred<Unit>()
    val job = launch(Dispatchers.Default) { say("load", failure { loading(begun) }) }
    begun.await()
    job.cancelAndJoin()
    say("cancelled", job.isCancelled)
}
