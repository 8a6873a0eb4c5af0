package org.spikingbrain.ktx.cases

import java.io.File
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.withTimeout
import kotlinx.coroutines.withTimeoutOrNull
import org.spikingbrain.Generation
import org.spikingbrain.ktx.SpikingBrainModel
import org.spikingbrain.ktx.SpikingBrainSession
import org.spikingbrain.ktx.spikingBrain

private val LONG = IntArray(4000) { (it * 7) % 250 }

private suspend fun SpikingBrainSession.greedy(prompt: IntArray) = generate(prompt, GREEDY).toList().joinToString("")

/** Whether the session, whatever it holds, says what a new one says. */
private suspend fun exact(model: SpikingBrainModel, session: SpikingBrainSession, prompt: IntArray): Boolean =
    session.greedy(prompt) == model.session(SMALL).use { it.greedy(prompt) }

/** model: cancelled while a long prompt is read. */
internal suspend fun cancelledPrompt(file: String) = spikingBrain(File(file)).use { model ->
    model.session(SMALL).use { session ->
        coroutineScope {
            val read = CompletableDeferred<Unit>()
            val job: Job = launch(Dispatchers.Default) {
                say("collector", failure {
                    session.generate(LONG) { maxTokens = 5; onProgress { if (it.done >= 64) read.complete(Unit) } }.toList()
                })
            }
            read.await()
            job.cancelAndJoin()
            say("cancelled", job.isCancelled)
            say("held", session.java.nTokens()) // whole micro-batches, some of them
            val evaluated = session.java.nEvaluated()
            delay(50)
            say("still", session.java.nEvaluated() == evaluated) // join() means that nothing computes any more
        }
        say("timeout", withTimeoutOrNull(100) { session.eval(LONG + LONG) } == null)
        say("exact", exact(model, session, LONG.copyOf(200)))
    }
}

/** model: cancelled while an answer is written; by take(); both leave a session that goes on. */
internal suspend fun cancelledAnswer(file: String) = spikingBrain(File(file)).use { model ->
    model.session(SMALL).use { session ->
        coroutineScope {
            val said = mutableListOf<String>()
            var ended: Generation? = null
            val enough = CompletableDeferred<Unit>()
            val job = launch(Dispatchers.Default) {
                session.generate(PROMPT) { temperature = 0f; maxTokens = 100_000; onEnd { ended = it } }.collect {
                    said += it
                    if (said.size == 5) enough.complete(Unit)
                }
            }
            enough.await()
            job.cancelAndJoin()
            say("reason", checkNotNull(ended).finishReason())
            say("kept", ended.text().startsWith(said.joinToString("")) && said.size >= 5)
        }
        var reason: Generation.FinishReason? = null
        say("taken", session.generate(PROMPT) { GREEDY(); onEnd { reason = it.finishReason() } }.take(3).toList().size)
        say("taken_reason", reason)
        say("exact", exact(model, session, model.java.tokenize(PROMPT, true, true)))
    }
}

/** model: a call that waits for another's end is cancelled without ending that other. */
internal suspend fun cancelledWaiting(file: String) = spikingBrain(File(file)).use { model ->
    model.session(SMALL).use { session ->
        coroutineScope {
            val read = CompletableDeferred<Unit>()
            val first = async(Dispatchers.Default) { failure { session.eval(LONG) { if (it.done >= 64) read.complete(Unit) } } }
            read.await()
            say("waiting", withTimeoutOrNull(30) { session.eval(intArrayOf(1)) } == null)
            say("first_runs", first.isActive)
            say("first", first.await())
            say("held", session.java.nTokens())
        }
        coroutineScope { // a failure beside it cancels the answer, and is what the scope ends in
            say("scope", failure {
                coroutineScope {
                    launch(Dispatchers.Default) { session.eval(LONG + LONG) }
                    delay(50)
                    error("beside")
                }
            })
        }
        withTimeout(5000) { session.eval(intArrayOf(1)) }
    }
}
