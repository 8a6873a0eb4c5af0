#pragma once

// A slot's file: llama.cpp's own bytes (tokens and state), then what makes it worth restoring where the memory cannot go
// back: the slot's checkpoints. So a prompt that is a part of what was saved, or leaves it after the last user message, is
// continued from the nearest checkpoint, as in the process that saved it.
//
//   llama_state_seq_save_file's bytes
//   u64 number of checkpoints; per checkpoint: i64 n_tokens, i64 pos_min, i64 pos_max, u64 bytes, the bytes,
//       u64 bytes, the logits at a prompt's end (server-checkpoints.h) or none
//   per adapter that the tokens were computed with: u64 print, f32 scale
//   u64 number of adapters, u64 first token they apply to; u64 prints of weights, settings, memory; u32 magic, u32 version,
//   u64 checksum of all before it
//
// It is restored where the prints (llama-spikingbrain.h) are this model's and its adapters are loaded; a prompt that asks for other
// ones, or other scales, is then read again, as in the process that saved it.
//
// All of it is checked before llama.cpp reads its part, which it reads unchecked (a short file ends the process there).

#include "server-lost.h"
#include "server-task.h"
#include "whole-file.h"

#include "llama-spikingbrain.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <list>
#include <stdexcept>
#include <string>
#include <vector>

struct server_slot_file {
    static constexpr uint32_t MAGIC   = 0x43534253; // "SBSC"
    static constexpr uint32_t VERSION = 3;
    static constexpr uint64_t N_ADAPTER = sizeof(uint64_t) + sizeof(float);
    static constexpr uint64_t N_END     = 6*sizeof(uint64_t) + 2*sizeof(uint32_t); // number of adapters to checksum

    static uint64_t mix(uint64_t h, const char * data, size_t n) {
        for (size_t i = 0; i < n; i += 8) {
            uint64_t word = 0;
            memcpy(&word, data + i, std::min<size_t>(8, n - i));
            h = (h ^ word)*0x9e3779b97f4a7c15ull;
            h ^= h >> 29;
        }
        return (h ^ n)*0x9e3779b97f4a7c15ull;
    }

    // of the first n bytes
    static uint64_t checksum(const std::string & name, uint64_t n) {
        std::ifstream in(std::filesystem::u8path(name), std::ios::binary);
        std::vector<char> buf(1 << 20);
        uint64_t h = 0;
        while (n > 0 && in) {
            const size_t want = std::min<uint64_t>(buf.size(), n);
            in.read(buf.data(), want);
            h  = mix(h, buf.data(), in.gcount());
            n -= in.gcount();
        }
        return n == 0 ? h : ~h;
    }

    template <typename T>
    static void put(std::ofstream & out, T value) {
        out.write(reinterpret_cast<const char *>(&value), sizeof(value));
    }

    template <typename T>
    static T get(std::ifstream & in) {
        T value = {};
        in.read(reinterpret_cast<char *>(&value), sizeof(value));
        return value;
    }

    static void put(std::ofstream & out, const std::vector<uint8_t> & data) {
        put<uint64_t>(out, data.size());
        out.write(reinterpret_cast<const char *>(data.data()), data.size());
    }

    // at most `most` bytes are believed
    static void get(std::ifstream & in, std::vector<uint8_t> & data, uint64_t most) {
        data.resize(std::min(get<uint64_t>(in), most));
        in.read(reinterpret_cast<char *>(data.data()), data.size());
    }
};

// To save a slot: `filepath` gets a temporary name (whole-file.h), under which llama.cpp writes; seal() finishes the file and
// puts it in place. Never over a device or a file that the server has read.
class server_slot_writer : server_slot_file {
    whole_file::files whole;
    std::string part;
    std::string reason;
    llama_spikingbrain_print print;
    const llama_context *    ctx;

public:
    template <typename params_t>
    server_slot_writer(std::string & filepath, const params_t & params, const llama_context * ctx) : print(llama_spikingbrain_print_of(ctx)), ctx(ctx) {
        try {
            server_throw_if_lost(ctx);
            filepath = part = whole.begin(filepath, whole_file::inputs_of(params));
        } catch (const std::exception & err) {
            reason = err.what();
        }
    }

    // Why there can be no such file, or nullptr.
    const char * refused() const {
        return reason.empty() ? nullptr : reason.c_str();
    }

    // n_state: bytes that llama.cpp wrote. Returns the file's size, or 0 if it could not be written: an older file of that
    // name is then as it was.
    size_t seal(const server_prompt & prompt, size_t n_state) {
        std::error_code err;
        const std::filesystem::path path = std::filesystem::u8path(part);
        const bool complete = std::filesystem::file_size(path, err) == n_state && !err; // its last bytes are written at close, unchecked
        std::ofstream out(path, std::ios::binary | std::ios::app);
        put<uint64_t>(out, prompt.checkpoints.size());
        for (const auto & cur : prompt.checkpoints) {
            put<int64_t> (out, cur.n_tokens);
            put<int64_t> (out, cur.pos_min);
            put<int64_t> (out, cur.pos_max);
            put(out, cur.data_tgt);
            put(out, cur.data_spec);
        }
        const server_adapters & adapters = prompt.tokens.adapters;
        for (const auto & [one, scale] : adapters.used) {
            put<uint64_t>(out, one);
            put<float>   (out, scale);
        }
        put<uint64_t>(out, adapters.used.size());
        put<uint64_t>(out, adapters.from);
        put<uint64_t>(out, print.weights);
        put<uint64_t>(out, print.settings);
        put<uint64_t>(out, print.memory);
        put(out, MAGIC);
        put(out, VERSION);
        out.flush();

        const uint64_t size = out ? std::filesystem::file_size(path, err) : 0;
        put(out, checksum(part, size));
        out.close();
        try {
            if (complete && out && !err && server_lost(ctx).empty()) {
                whole.commit();
                return size + sizeof(uint64_t);
            }
        } catch (const std::exception &) {
        }
        whole.discard(); // before the client hears of it
        return 0;
    }
};

// To restore one: checks the file (throws std::runtime_error), then, after llama.cpp has read the state, the checkpoints.
class server_slot_reader : server_slot_file {
    std::ifstream   in;
    uint64_t        size;
    server_adapters adapters;

    void read_adapters(uint64_t n) {
        expect(n <= (size - N_END)/N_ADAPTER, "slot file: adapters: got more than fit; save the slot again");
        in.seekg(size - N_END - n*N_ADAPTER);
        for (; n > 0; --n) {
            const auto print = get<uint64_t>(in);
            adapters.used.emplace_back(print, get<float>(in));
        }
        expect(adapters.known(), "slot file: adapters: got a slot computed with one that is not loaded, expected this server's; start it with the LoRA adapters the slot was saved with");
    }

    static void expect(bool ok, const char * what) {
        if (!ok) {
            throw std::runtime_error(what);
        }
    }

public:
    // draft: the context of a draft model; NULL: there is none
    server_slot_reader(const std::string & filepath, const llama_context * ctx, const llama_context * draft) {
        std::error_code err;
        const std::filesystem::path path = std::filesystem::u8path(filepath);
        server_throw_if_lost(ctx);
        expect(!draft, "slot file: got a server with a draft model, expected one without: no slot file has what that model remembers of the text; start it without -md, or send the prompt");
        expect(std::filesystem::is_regular_file(path, err), "slot file: got no such file, expected one that was saved"); // a pipe never answers
        in.open(path, std::ios::binary);
        size = std::filesystem::file_size(path, err);
        expect(in && !err, "slot file: got no such file, expected one that was saved");
        expect(size > N_END, "slot file: got too few bytes; it is cut short or was not saved by this server");

        in.seekg(size - N_END);
        const auto n_adapters = get<uint64_t>(in);
        adapters.from = get<uint64_t>(in);
        const llama_spikingbrain_print expected = llama_spikingbrain_print_of(ctx);
        llama_spikingbrain_print got = expected; // the adapters are those of the last batch, not of the slot
        got.weights  = get<uint64_t>(in);
        got.settings = get<uint64_t>(in);
        got.memory   = get<uint64_t>(in);
        const auto magic   = get<uint32_t>(in);
        const auto version = get<uint32_t>(in);
        expect(magic == MAGIC, "slot file: end: got other bytes than a slot's; it is cut short or was not saved by this server");
        expect(version == VERSION, "slot file: version: got another one than this server's; save the slot again");
        expect(get<uint64_t>(in) == checksum(filepath, size - sizeof(uint64_t)), "slot file: checksum: got another one than was saved; it is damaged");
        if (const char * why = llama_spikingbrain_print_difference(&got, &expected)) {
            throw std::runtime_error(std::string("slot file: ") + why);
        }
        read_adapters(n_adapters);
    }

    // n_state: bytes that llama.cpp has read; rows: whether the slot can use logits. Returns how many bytes follow them.
    size_t checkpoints(size_t n_state, server_prompt & prompt, bool rows) {
        auto & out = prompt.checkpoints;
        prompt.tokens.adapters = adapters;
        in.seekg(n_state);
        out.clear();
        for (uint64_t n = get<uint64_t>(in); n > 0; --n) {
            auto & cur = out.emplace_back();
            cur.n_tokens = get<int64_t>(in);
            cur.pos_min  = get<int64_t>(in);
            cur.pos_max  = get<int64_t>(in);
            get(in, cur.data_tgt, size);
            get(in, cur.data_spec, size);
            if (!rows) {
                cur.data_spec.clear();
            }
            expect(bool(in), "slot file: checkpoints: got fewer bytes than announced; save the slot again");
        }
        return size - n_state;
    }
};
