package org.spikingbrain.ktx

import java.io.File
import java.util.Collections
import java.util.concurrent.ConcurrentHashMap
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.withContext
import org.spikingbrain.ModelOptions
import org.spikingbrain.SpikingBrain

/** Loads a GGUF file on a thread of its own. Errors: those of [SpikingBrain.load]. */
public suspend fun spikingBrain(file: File, configure: ModelScope.() -> Unit = {}): SpikingBrainModel =
    load(ModelScope().apply(configure)) { options -> SpikingBrain.load(file, options) }

/** The same of a file descriptor, which stays the caller's. */
public suspend fun spikingBrain(fd: Int, configure: ModelScope.() -> Unit = {}): SpikingBrainModel =
    load(ModelScope().apply(configure)) { options -> SpikingBrain.load(fd, options) }

internal suspend fun load(scope: ModelScope, load: (ModelOptions) -> SpikingBrain): SpikingBrainModel {
    val options = scope.build()
    val thread = NativeThread("spikingbrain model")
    try {
        return SpikingBrainModel(thread.open<Any, _> { load(options) }, thread)
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
    private val sessions = Collections.newSetFromMap(ConcurrentHashMap<SpikingBrainSession, Boolean>())

    /** A new sequence with memory of its own and a thread of its own. Errors: those of [SpikingBrain.newSession]. */
    public suspend fun session(configure: SessionScope.() -> Unit = {}): SpikingBrainSession {
        val options = SessionScope().apply(configure).build()
        val made = thread.open<Any, _> { java.newSession(options) }
        return SpikingBrainSession(made, this).also(sessions::add)
    }

    /** Calls the Java API on the model's thread. */
    public suspend fun <T> call(block: (SpikingBrain) -> T): T = thread.call { block(java) }

    internal fun forget(session: SpikingBrainSession) = sessions.remove(session)

    /** Cancels and closes all sessions, frees the model; waits for that. Calling it again is harmless. */
    override fun close() {
        java.close()
        sessions.forEach(SpikingBrainSession::close)
        thread.close()
    }

    /** The same without blocking the caller's thread. */
    public suspend fun closeAndJoin(): Unit = withContext(NonCancellable + Dispatchers.IO) { close() }
}
