"""The benchmark suite: what this project promises, measured beside unpatched llama.cpp in the same run. See README.md."""
