package org.spikingbrain.ktx

import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.RejectedExecutionException
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicReference
import kotlin.coroutines.resume
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.launch
import kotlinx.coroutines.suspendCancellableCoroutine
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeoutOrNull

/**
 * The one thread on which the native calls of a model or a session are made, in the order of the calls. It ends when its owner is closed,
 * and while nothing is called: an owner that was forgotten holds no thread.
 */
internal class NativeThread(name: String) {
    private val executor = ThreadPoolExecutor(1, 1, IDLE_SECONDS, TimeUnit.SECONDS, LinkedBlockingQueue()) { work ->
        Thread(work, name).apply { isDaemon = true }
    }.apply { allowCoreThreadTimeOut(true) }

    /**
     * Runs [block] there. A coroutine that is cancelled meanwhile calls [cancel] from the thread that cancels it, and goes on only when
     * the block has ended; a block that has not begun never does.
     */
    suspend fun <T> call(cancel: () -> Unit = {}, block: () -> T): T {
        currentCoroutineContext().ensureActive()
        val task = Task(cancel, block)
        try {
            suspendCancellableCoroutine<Unit> { waiting ->
                waiting.invokeOnCancellation { task.cancel() }
                task.result.invokeOnCompletion { waiting.resume(Unit) }
                execute(task)
            }
        } catch (e: CancellationException) {
            withContext(NonCancellable + Dispatchers.Default) {
                while (withTimeoutOrNull(AGAIN_MS) { task.result.join() } == null) task.cancel() // again: the first may have come before there was what it ends
            }
            throw e
        }
        return task.result.await()
    }

    /** Runs [block], which makes what must be closed: so it is where the caller does not get it after all. */
    suspend fun <R : Any, T : AutoCloseable> open(onReport: (suspend (R) -> Unit)? = null, cancel: () -> Unit = {}, block: (((R) -> Unit)?) -> T): T {
        val made = AtomicReference<T>()
        try {
            return reporting(onReport) { report -> call(cancel) { block(report).also(made::set) } }
        } catch (e: Throwable) {
            made.get()?.let { withContext(NonCancellable) { call { it.close() } } }
            throw e
        }
    }

    /** What was called before still runs; what is called afterwards runs in its caller, where a closed owner refuses it. */
    fun close() = executor.shutdown()

    private fun execute(task: Runnable) {
        try {
            executor.execute(task)
        } catch (_: RejectedExecutionException) {
            task.run()
        }
    }

    private companion object {
        const val IDLE_SECONDS = 5L
        const val AGAIN_MS = 20L
    }
}

private class Task<T>(private val cancelRunning: () -> Unit, private val block: () -> T) : Runnable {
    val result = CompletableDeferred<T>()
    private var state = State.WAITING // guarded by this: what is cancelled is this call, never the one after it

    private enum class State { WAITING, RUNNING, ENDED }

    override fun run() {
        synchronized(this) {
            if (state != State.WAITING) return
            state = State.RUNNING
        }
        val outcome = runCatching(block)
        synchronized(this) { state = State.ENDED }
        outcome.fold(result::complete, result::completeExceptionally)
    }

    fun cancel() = synchronized(this) {
        when (state) {
            State.WAITING -> {
                state = State.ENDED
                result.cancel()
            }
            State.RUNNING -> cancelRunning()
            State.ENDED -> Unit
        }
    }
}

/**
 * Runs [work] with a function that any thread may call; what it is told reaches [onReport] in the caller's own coroutine, where that one is
 * slower the latest, or all with an unlimited capacity. null: nobody listens.
 */
internal suspend fun <R : Any, T> reporting(
    onReport: (suspend (R) -> Unit)?,
    capacity: Int = Channel.CONFLATED,
    work: suspend (((R) -> Unit)?) -> T,
): T {
    if (onReport == null) return work(null)
    return coroutineScope {
        val reports = Channel<R>(capacity)
        launch { for (report in reports) onReport(report) }
        try {
            work { report -> reports.trySend(report) }
        } finally {
            reports.close()
        }
    }
}
