import java.util.Properties

plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.android.library) apply false
}

tasks.wrapper { // makes gradlew and its jar, and keeps what is pinned
    val pinned = Properties().apply { file("gradle/wrapper/gradle-wrapper.properties").reader().use(::load) }
    distributionUrl = pinned.getProperty("distributionUrl")
    distributionSha256Sum = pinned.getProperty("distributionSha256Sum")
}
