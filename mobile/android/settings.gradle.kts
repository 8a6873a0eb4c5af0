// Not yet run: no Gradle and no SDK where this was written (README.md: what was done instead).
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
include(":ktx")
include(":app")

