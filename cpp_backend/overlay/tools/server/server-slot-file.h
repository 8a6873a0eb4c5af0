#pragma once

// A slot's file: llama.cpp's own bytes (tokens and state), then what makes it worth restoring where the memory cannot go
// back: the slot's checkpoints. So a prompt that is a part of what was saved, or leaves it after the last user message, is
// continued from the nearest checkpoint, as in the process that saved it.
//
//   llama_state_seq_save_file's bytes
//   u64 number of checkpoints; per checkpoint: i64 n_tokens, i64 pos_min, i64 pos_max, u64 bytes, the bytes,
//       u64 bytes, the logits at a prompt's end (server-checkpoints.h) or none
//   u64 fingerprint of the model file, u32 magic, u32 version, u64 checksum of all before it
//
// All of it is checked before llama.cpp reads its part, which it reads unchecked (a short file ends the process there).

#include "server-task.h"
#include "whole-file.h"

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
    static constexpr uint32_t VERSION = 2;
    static constexpr uint64_t N_END   = sizeof(uint64_t) + 2*sizeof(uint32_t) + sizeof(uint64_t); // fingerprint to checksum

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
        std::ifstream in(name, std::ios::binary);
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

    // of the file's size and 256 blocks spread evenly over it: other weights of the same shape differ, too
    static uint64_t fingerprint(const std::string & name) {
        std::error_code err;
        const uint64_t size = std::filesystem::file_size(name, err);
        if (err) {
            return 0; // a model without a file of its own
        }
        std::ifstream in(name, std::ios::binary);
        std::vector<char> buf(4096);
        uint64_t h = size;
        for (uint64_t i = 0; i < 256; ++i) {
            in.clear();
            in.seekg(size > buf.size() ? (size - buf.size())/255*i : 0);
            in.read(buf.data(), buf.size());
            h = mix(h, buf.data(), in.gcount());
        }
        return h;
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
    uint64_t    model;

public:
    template <typename params_t>
    server_slot_writer(std::string & filepath, const params_t & params) : model(fingerprint(params.model.path)) {
        try {
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
    size_t seal(const std::list<common_prompt_checkpoint> & checkpoints, size_t n_state) {
        std::error_code err;
        const bool complete = std::filesystem::file_size(part, err) == n_state && !err; // its last bytes are written at close, unchecked
        std::ofstream out(part, std::ios::binary | std::ios::app);
        put<uint64_t>(out, checkpoints.size());
        for (const auto & cur : checkpoints) {
            put<int64_t> (out, cur.n_tokens);
            put<int64_t> (out, cur.pos_min);
            put<int64_t> (out, cur.pos_max);
            put(out, cur.data_tgt);
            put(out, cur.data_spec);
        }
        put(out, model);
        put(out, MAGIC);
        put(out, VERSION);
        out.flush();

        const uint64_t size = out ? std::filesystem::file_size(part, err) : 0;
        put(out, checksum(part, size));
        out.close();
        try {
            if (complete && out && !err) {
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
    std::ifstream in;
    uint64_t      size;

    static void expect(bool ok, const char * what) {
        if (!ok) {
            throw std::runtime_error(what);
        }
    }

public:
    server_slot_reader(const std::string & filepath, const std::string & model_path) : in(filepath, std::ios::binary) {
        std::error_code err;
        size = std::filesystem::file_size(filepath, err);
        expect(in && !err, "slot file: got no such file, expected one that was saved");
        expect(size > N_END, "slot file: got too few bytes; it is cut short or was not saved by this server");

        in.seekg(size - N_END);
        const auto model   = get<uint64_t>(in);
        const auto magic   = get<uint32_t>(in);
        const auto version = get<uint32_t>(in);
        expect(magic == MAGIC, "slot file: end: got other bytes than a slot's; it is cut short or was not saved by this server");
        expect(version == VERSION, "slot file: version: got another one than this server's; save the slot again");
        expect(get<uint64_t>(in) == checksum(filepath, size - sizeof(uint64_t)), "slot file: checksum: got another one than was saved; it is damaged");
        expect(model == fingerprint(model_path), "slot file: model: got the slot of another model file; start the server with the one it was saved from");
    }

    // n_state: bytes that llama.cpp has read; rows: whether the slot can use logits. Returns how many bytes follow them.
    size_t checkpoints(size_t n_state, std::list<common_prompt_checkpoint> & out, bool rows) {
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
