// Not yet run: no NDK where this was written. Without the Gradle wrapper, whose jar is a binary from the network: `gradle wrapper` makes it.
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "spikingbrain-android"
include(":library")
include(":app")

