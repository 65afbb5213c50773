// The log callback.
#include "engine/llama/log.h"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <string_view>

#include "llama.h"

namespace sllm::llama {

namespace {

constexpr std::size_t kept_lines = 4;
constexpr std::size_t kept_chars = 300;  // of one line: hostile files put their own text into messages

thread_local std::deque<std::string> *collecting = nullptr;
thread_local std::deque<std::string> collected;
// A line may come in several calls: what continues a silent line is silent.
thread_local bool last_shown = false;

void take(ggml_log_level level, const char *text, void *) {
    // The library compares the context of all slots together with what the model was trained for.
    const bool mistaken = std::string_view(text).find("possible training context overflow") != std::string_view::npos;
    const bool shown = level == GGML_LOG_LEVEL_CONT ? last_shown : level >= GGML_LOG_LEVEL_WARN && !mistaken;
    last_shown = shown;
    if (!shown) return;
    std::fputs(text, stderr);
    if (level != GGML_LOG_LEVEL_ERROR || collecting == nullptr) return;
    std::string line(text, std::min(std::char_traits<char>::length(text), kept_chars));
    while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.pop_back();
    if (line.empty()) return;
    collecting->push_back(line);
    if (collecting->size() > kept_lines) collecting->pop_front();
}

// Before it ends the process over a broken assertion, the library would start a debugger for a backtrace, if it finds
// one: seconds during which the process seems alive. With a callback it only tells.
void tell_abort(const char *message) { std::fprintf(stderr, "%s\n", message); }

}  // namespace

void install_log() {
    llama_log_set(take, nullptr);
    ggml_set_abort_callback(tell_abort);
}

LastWords::LastWords() {
    collected.clear();
    collecting = &collected;
}

LastWords::~LastWords() { collecting = nullptr; }

std::string LastWords::text() const {
    std::string text;
    for (const std::string &line : collected) text += (text.empty() ? "" : "; ") + line;
    return text.empty() ? "no reason was given" : text;
}

}  // namespace sllm::llama
