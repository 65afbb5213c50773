// The stream's callbacks.
#include "engine/llama/memory_file.h"

#include <algorithm>
#include <cstring>

namespace sllm::llama {

MemoryFile::MemoryFile(std::span<const std::uint8_t> header, std::span<const std::uint8_t> data, bool data_in_place)
    : header_(header), data_(data), data_in_place_(data_in_place) {
    cookie_io_functions_t functions{};
    functions.read = read;
    functions.seek = seek;
    file_ = ::fopencookie(this, "rb", functions);
}

MemoryFile::~MemoryFile() {
    if (file_ != nullptr) std::fclose(file_);
}

ssize_t MemoryFile::read(void *self, char *out, std::size_t bytes) {
    auto &file = *static_cast<MemoryFile *>(self);
    const std::uint64_t header = file.header_.size();
    const bool in_header = file.position_ < header;
    const std::span<const std::uint8_t> part = in_header ? file.header_ : file.data_;
    const std::uint64_t at = in_header ? file.position_ : file.position_ - header;
    if (at >= part.size()) return 0;
    const std::size_t n = std::min<std::size_t>(bytes, part.size() - at);
    if (in_header || !file.data_in_place_) std::memcpy(out, part.data() + at, n);
    file.position_ += n;
    return static_cast<ssize_t>(n);
}

int MemoryFile::seek(void *self, off64_t *offset, int whence) {
    auto &file = *static_cast<MemoryFile *>(self);
    const std::uint64_t end = file.header_.size() + file.data_.size();
    const std::uint64_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? file.position_ : end;
    file.position_ = base + static_cast<std::uint64_t>(*offset);
    *offset = static_cast<off64_t>(file.position_);
    return 0;
}

}  // namespace sllm::llama
