// A FILE* that serves a GGUF header from memory and stands for a file with all its data. Once the engine library has
// buffers for the weights, the stream pretends to stand at its end wherever it is sent: the library then reads zero
// bytes for each tensor, and nothing is copied.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>

namespace sllm::llama {

class HeaderStream {
public:
    // header: borrowed. file_bytes: of header and data together.
    HeaderStream(std::span<const std::uint8_t> header, std::uint64_t file_bytes);
    ~HeaderStream();
    HeaderStream(const HeaderStream &) = delete;
    HeaderStream &operator=(const HeaderStream &) = delete;

    // Null when the stream could not be made.
    std::FILE *file() const { return file_; }

    // From now on every tensor reads as empty.
    void withhold_data() { withheld_ = true; }

private:
    static ssize_t read(void *self, char *out, std::size_t bytes);
    static int seek(void *self, off64_t *offset, int whence);

    std::span<const std::uint8_t> header_;
    std::uint64_t file_bytes_;
    std::uint64_t position_ = 0;
    bool withheld_ = false;
    std::FILE *file_ = nullptr;
};

}  // namespace sllm::llama
