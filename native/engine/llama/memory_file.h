// A FILE* over a GGUF header and the data behind it, both in memory: what the library reads is copied from there.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>

namespace sllm::llama {

class MemoryFile {
public:
    // Both borrowed. header ends where the data begins.
    MemoryFile(std::span<const std::uint8_t> header, std::span<const std::uint8_t> data);
    ~MemoryFile();
    MemoryFile(const MemoryFile &) = delete;
    MemoryFile &operator=(const MemoryFile &) = delete;

    // Null when the stream could not be made.
    std::FILE *file() const { return file_; }

private:
    static ssize_t read(void *self, char *out, std::size_t bytes);
    static int seek(void *self, off64_t *offset, int whence);

    const std::span<const std::uint8_t> header_;
    const std::span<const std::uint8_t> data_;
    std::uint64_t position_ = 0;
    std::FILE *file_ = nullptr;
};

}  // namespace sllm::llama
