package org.spikingbrain.ktx

import org.spikingbrain.GenerateOptions
import org.spikingbrain.Generation
import org.spikingbrain.Grammar
import org.spikingbrain.ModelOptions
import org.spikingbrain.SessionOptions
import org.spikingbrain.Tool
import org.spikingbrain.ToolChoice

@DslMarker
internal annotation class OptionsDsl

/** What [spikingBrain] is given: the names of [ModelOptions]; null: its default. */
@OptionsDsl
public class ModelScope internal constructor() {
    public var spike: Boolean? = null
    public var spikeK: Float? = null
    public var useMmap: Boolean? = null
    public var checkMemory: Boolean? = null
    public var availableMemory: Long? = null

    internal var onProgress: (suspend (Double) -> Unit)? = null

    /** Called in the caller's coroutine with the share of the weights that is loaded, 0 to 1; a slow one is told the latest. */
    public fun onProgress(action: suspend (Double) -> Unit) {
        onProgress = action
    }

    internal fun build(): ModelOptions = ModelOptions().also { o ->
        spike?.let(o::spike)
        spikeK?.let { o.spikeK(it.exact()) }
        useMmap?.let(o::useMmap)
        checkMemory?.let(o::checkMemory)
        availableMemory?.let(o::availableMemory)
    }
}

/** What [SpikingBrainModel.session] is given: the names of [SessionOptions]; null: its default. */
@OptionsDsl
public class SessionScope internal constructor() {
    public var nCtx: Int? = null
    public var nBatch: Int? = null
    public var nUbatch: Int? = null
    public var nThreads: Int? = null
    public var nThreadsBatch: Int? = null
    public var lastNTokens: Int? = null
    public var spikeStats: Boolean? = null
    public var cpus: List<Int>? = null

    internal fun build(): SessionOptions = SessionOptions().also { o ->
        nCtx?.let(o::nCtx)
        nBatch?.let(o::nBatch)
        nUbatch?.let(o::nUbatch)
        nThreads?.let(o::nThreads)
        nThreadsBatch?.let(o::nThreadsBatch)
        lastNTokens?.let(o::lastNTokens)
        spikeStats?.let(o::spikeStats)
        cpus?.let { o.cpus(*it.toIntArray()) }
    }
}

/** What answers are given: the names of [GenerateOptions]; null: its default. */
@OptionsDsl
public open class GenerateScope internal constructor() {
    public var maxTokens: Int? = null
    public var temperature: Float? = null
    public var topK: Int? = null
    public var topP: Float? = null
    public var minP: Float? = null
    public var typicalP: Float? = null
    public var repeatPenalty: Float? = null
    public var frequencyPenalty: Float? = null
    public var presencePenalty: Float? = null
    public var logitBias: Map<Int, Float>? = null
    public var seed: Long? = null
    public var stop: List<String>? = null
    public var logprobs: Int? = null
    public var grammar: Grammar? = null
    public var tools: List<Tool>? = null
    public var toolChoice: ToolChoice? = null

    internal fun build(): GenerateOptions = GenerateOptions().also { o ->
        maxTokens?.let(o::maxTokens)
        temperature?.let { o.temperature(it.exact()) }
        topK?.let(o::topK)
        topP?.let { o.topP(it.exact()) }
        minP?.let { o.minP(it.exact()) }
        typicalP?.let { o.typicalP(it.exact()) }
        repeatPenalty?.let { o.repeatPenalty(it.exact()) }
        frequencyPenalty?.let { o.frequencyPenalty(it.exact()) }
        presencePenalty?.let { o.presencePenalty(it.exact()) }
        logitBias?.let { bias -> o.logitBias(bias.mapValues { it.value.exact() }) }
        seed?.let(o::seed)
        stop?.let { o.stop(*it.toTypedArray()) }
        logprobs?.let(o::logprobs)
        grammar?.let(o::grammar)
        tools?.let(o::tools)
        toolChoice?.let(o::toolChoice)
    }
}

/** The same of one answer, and what is called on the way. */
public class AnswerScope internal constructor() : GenerateScope() {
    internal var onProgress: (suspend (PromptProgress) -> Unit)? = null
    internal var onEnd: (Generation) -> Unit = {}

    /** Called in the collector's coroutine while the prompt is read; a slow one is told the latest. */
    public fun onProgress(action: suspend (PromptProgress) -> Unit) {
        onProgress = action
    }

    /**
     * Called in the collector's coroutine when the answer has ended, also by cancellation or an exception: its text, message, tokens, log
     * probabilities, timings.
     */
    public fun onEnd(action: (Generation) -> Unit) {
        onEnd = action
    }
}

/** Tokens of a prompt that were read, of those that must be. */
public data class PromptProgress(val done: Int, val total: Int)

/** 0.1f is 0.1, as its writer sees it; the model computes with float. */
private fun Float.exact(): Double = toString().toDouble()
