// Rows of the KV cache that go to another engine or come from one, in files of few megabytes between two steps.
#include <fcntl.h>

#include <cstdio>
#include <string>
#include <vector>

#include "core/digest.h"
#include "engine/batcher.h"
#include "io/owned.h"

namespace sllm {

namespace {

Status io_error(const char *what, const std::string &path) {
    return {Code::io, std::string("cannot ") + what + " " + path};
}

Status write_file(Env &env, const std::string &path, const std::vector<std::uint8_t> &data) {
    const OwnedFd file(env, env.open(path.c_str(), O_WRONLY | O_TRUNC));
    if (!file.valid()) return io_error("open", path);
    for (std::size_t done = 0; done < data.size();) {
        const ssize_t n = env.pwrite(file.get(), data.data() + done, data.size() - done, done);
        if (n <= 0) return io_error("write", path);
        done += static_cast<std::size_t>(n);
    }
    return {};
}

Status read_file(Env &env, const std::string &path, std::vector<std::uint8_t> *data) {
    const OwnedFd file(env, env.open(path.c_str(), O_RDONLY));
    if (!file.valid()) return io_error("open", path);
    for (std::size_t done = 0; done < data->size();) {
        const ssize_t n = env.pread(file.get(), data->data() + done, data->size() - done, done);
        if (n <= 0) return io_error("read", path);
        done += static_cast<std::size_t>(n);
    }
    return {};
}

}  // namespace

void Batcher::move_kv(const KvTransfer &transfer) {
    // One that has come with the same call gets its slot first.
    if (transfer.load) admit();
    Session *session = find(transfer.request);
    if (session == nullptr) return;
    std::uint64_t digest = 0;
    const Status status = transfer.load ? load_kv(*session, transfer) : save_kv(*session, transfer, &digest);
    sllm_event event = event_of(*session, SLLM_EVENT_KV);
    event.index = transfer.to;
    event.status = static_cast<std::int32_t>(status.code());
    char text[17] = "";
    if (!transfer.load) std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(digest));
    emit_(event, status.ok() ? std::string(text) : status.message(), {});
    report_held();
}

Status Batcher::save_kv(const Session &session, const KvTransfer &transfer, std::uint64_t *digest) {
    if (!has_slot(session) || session.awaits_kv || transfer.to > kv_.length(session.slot)) {
        return {Code::wrong_state, "the KV cache does not hold so many tokens of the request"};
    }
    std::vector<std::uint8_t> rows;
    if (Status s = backend_.read_kv(session.slot, transfer.from, transfer.to, &rows); !s.ok()) return s;
    *digest = xxh3(rows.data(), rows.size());
    return write_file(env_, transfer.path, rows);
}

Status Batcher::load_kv(Session &session, const KvTransfer &transfer) {
    if (!has_slot(session) || !session.awaits_kv) return {Code::wrong_state, "the request awaits no rows"};
    if (transfer.all >= session.sequence.size()) return {Code::invalid_argument, "more rows than tokens"};
    std::vector<std::uint8_t> rows((transfer.to - transfer.from) * backend_.facts().kv_token_bytes);
    if (Status s = read_file(env_, transfer.path, &rows); !s.ok()) return s;
    if (xxh3(rows.data(), rows.size()) != transfer.digest) {
        return {Code::corrupt, "rows of the KV cache differ from their digest"};
    }
    if (transfer.from == 0) {
        backend_.cut(session.slot, 0);
        if (Status s = backend_.make_kv(session.slot, transfer.all); !s.ok()) return s;
        session.kv_cells = transfer.all;
        session.kv_loaded = 0;
    }
    if (transfer.from != session.kv_loaded || transfer.all != session.kv_cells) {
        return {Code::wrong_state, "rows before these are missing"};
    }
    if (Status s = backend_.write_kv(session.slot, transfer.from, rows); !s.ok()) return s;
    session.kv_loaded = transfer.to;
    if (transfer.to < transfer.all) return {};
    kv_.computed(session.slot, std::span(session.sequence).first(transfer.all));
    session.awaits_kv = false;
    return {};
}

}  // namespace sllm
