package org.spikingbrain.ktx.cases

import java.io.File
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import org.spikingbrain.ktx.SpikingBrainParallel
import org.spikingbrain.ktx.spikingBrain

/** model: answers computed together are those computed alone; pieces come in the caller's coroutine; cancelled, it can be used again. */
internal suspend fun parallel(file: String) = spikingBrain(File(file)).use { model ->
    val prompts = listOf(PROMPT, "hello the cat", "the dog")
    val alone = model.session(SMALL).use { session -> prompts.map { session.generate(it, GREEDY).toList().joinToString("") } }
    model.parallel(2, SMALL).use { parallel ->
        val told = Array(prompts.size) { "" }
        val answers = parallel.generate(prompts, onText = { told[it.answer] += it.text }) { maxTokens = 24; temperature = 0f }
        say("equal", answers.map { it.text } == alone)
        say("told", told.toList() == alone)
        say("two", parallel.generate(prompts, n = 2) { maxTokens = 4; seed = 1 }.map { it.index })
        say("cancelled", cancelled(parallel, prompts))
        say("refused", failure { parallel.generate(prompts) { maxTokens = 4; logprobs = 1 } })
        say("again", parallel.generate(prompts) { maxTokens = 24; temperature = 0f }.map { it.text } == alone)
    }
    say("closed", failure { model.parallel(2, SMALL).also { it.close() }.generate(prompts) })
}

private suspend fun cancelled(parallel: SpikingBrainParallel, prompts: List<String>): String = coroutineScope {
    val begun = CompletableDeferred<Unit>()
    val ended = CompletableDeferred<String>()
    val job = launch(Dispatchers.Default) {
        ended.complete(failure { parallel.generate(prompts, onText = { begun.complete(Unit) }) { maxTokens = 100_000; temperature = 0f } })
    }
    begun.await()
    job.cancelAndJoin()
    ended.await()
}
