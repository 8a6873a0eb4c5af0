/** SpikingBrain models on CPUs. What may be null says so, by {@code @Nullable}; nothing else may, and Kotlin sees it so. */
@NullMarked
package org.spikingbrain;

import org.jspecify.annotations.NullMarked;
