// A FILE* over a GGUF header and the data behind it, both in memory. What the library reads is copied from there; of
// data that it has in place already, nothing is.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>

namespace sllm::llama {

class MemoryFile {
public:
    // Both borrowed. header ends where the data begins. data_in_place: reads of data succeed and bring nothing.
    MemoryFile(std::span<const std::uint8_t> header, std::span<const std::uint8_t> data, bool data_in_place);
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
    const bool data_in_place_;
    std::uint64_t position_ = 0;
    std::FILE *file_ = nullptr;
};

}  // namespace sllm::llama
