// The border: conversations.
#include <memory>
#include <string_view>

#include "abi/engine_handle.h"
#include "abi/guard.h"
#include "engine/chat.h"

struct sllm_chat {
    std::unique_ptr<sllm::Chat> impl;
};

namespace {

using sllm::Code;
using sllm::Status;
using namespace sllm::abi;

Status null_pointer() { return {Code::invalid_argument, "a pointer is NULL"}; }

}  // namespace

extern "C" {

sllm_status sllm_chat_open(sllm_engine *engine, const char *request, uint64_t request_bytes, sllm_chat **out) {
    return guarded([&]() -> Status {
        if (engine == nullptr || request == nullptr || out == nullptr) return null_pointer();
        auto chat = std::make_unique<sllm_chat>();
        if (Status s = engine->impl.backend().open_chat({request, request_bytes}, &chat->impl); !s.ok()) return s;
        *out = chat.release();
        return {};
    });
}

void sllm_chat_close(sllm_chat *chat) { delete chat; }

sllm_status sllm_chat_describe(sllm_chat *chat, char *out, uint64_t cap, uint64_t *needed) {
    return guarded([&]() -> Status {
        return chat == nullptr ? null_pointer() : write_text(chat->impl->description(), out, cap, needed);
    });
}

sllm_status sllm_chat_feed(sllm_chat *chat, const char *text, uint64_t text_bytes, uint8_t last) {
    return guarded([&]() -> Status {
        if (chat == nullptr || (text == nullptr && text_bytes > 0)) return null_pointer();
        return chat->impl->feed(std::string_view(text_bytes == 0 ? "" : text, text_bytes), last != 0);
    });
}

sllm_status sllm_chat_take(sllm_chat *chat, char *out, uint64_t cap, uint64_t *needed) {
    return guarded([&]() -> Status {
        if (chat == nullptr) return null_pointer();
        if (Status s = write_text(chat->impl->delta(), out, cap, needed); !s.ok()) return s;
        chat->impl->clear_delta();
        return {};
    });
}

}  // extern "C"
