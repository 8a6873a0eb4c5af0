package org.spikingbrain.ktx

import java.io.File
import java.util.Collections
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.atomic.AtomicBoolean
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.withContext
import org.spikingbrain.LoadProgress
import org.spikingbrain.ModelOptions
import org.spikingbrain.SpikingBrain

/**
 * Loads a GGUF file on a thread of its own. A coroutine that is cancelled meanwhile goes on when all that was loaded is given back. Errors:
 * those of [SpikingBrain.load].
 */
public suspend fun spikingBrain(file: File, configure: ModelScope.() -> Unit = {}): SpikingBrainModel =
    load(ModelScope().apply(configure)) { options, progress -> SpikingBrain.load(file, options, progress) }

/** The same of a file descriptor, which stays the caller's. */
public suspend fun spikingBrain(fd: Int, configure: ModelScope.() -> Unit = {}): SpikingBrainModel =
    load(ModelScope().apply(configure)) { options, progress -> SpikingBrain.load(fd, options, progress) }

internal suspend fun load(scope: ModelScope, load: (ModelOptions, LoadProgress) -> SpikingBrain): SpikingBrainModel {
    val options = scope.build()
    val cancelled = AtomicBoolean()
    val thread = NativeThread("spikingbrain model")
    try {
        val made = thread.open(scope.onProgress, cancel = { cancelled.set(true) }) { report ->
            load(options) { share ->
                report?.invoke(share)
                !cancelled.get()
            }
        }
        return SpikingBrainModel(made, thread)
    } catch (e: Throwable) {
        thread.close()
        throw e
    }
}

/** A loaded model, for coroutines; all that [java] answers at once is asked there. Sessions belong to it and are closed with it. */
public class SpikingBrainModel internal constructor(
    /** The model itself. */
    public val java: SpikingBrain,
    private val thread: NativeThread,
) : AutoCloseable {
    private val parts = Collections.newSetFromMap(ConcurrentHashMap<AutoCloseable, Boolean>()) // sessions and the like

    /** A new sequence with memory of its own and a thread of its own. Errors: those of [SpikingBrain.newSession]. */
    public suspend fun session(configure: SessionScope.() -> Unit = {}): SpikingBrainSession {
        val options = SessionScope().apply(configure).build()
        val made = thread.open<Any, _> { java.newSession(options) }
        return SpikingBrainSession(made, this).also(parts::add)
    }

    /** Room for [n] answers at a time, computed together, on a thread of its own. Errors: those of [SpikingBrain.newParallel]. */
    public suspend fun parallel(n: Int, configure: SessionScope.() -> Unit = {}): SpikingBrainParallel {
        val options = SessionScope().apply(configure).build()
        val made = thread.open<Any, _> { java.newParallel(options, n) }
        return SpikingBrainParallel(made, this).also(parts::add)
    }

    /** Calls the Java API on the model's thread. */
    public suspend fun <T> call(block: (SpikingBrain) -> T): T = thread.call { block(java) }

    internal fun forget(part: AutoCloseable) = parts.remove(part)

    /** Cancels and closes all sessions, frees the model; waits for that. Calling it again is harmless. */
    override fun close() {
        java.close()
        parts.forEach(AutoCloseable::close)
        thread.close()
    }

    /** The same without blocking the caller's thread. */
    public suspend fun closeAndJoin(): Unit = withContext(NonCancellable + Dispatchers.IO) { close() }
}
