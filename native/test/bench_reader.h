// Reads pieces of a file in the ways that loaders do: buffered or O_DIRECT, one request after the other, many threads,
// or one io_uring. For the benchmarks only: it shares no code with the store, so that it can be its yardstick.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bench {

// What O_DIRECT wants of offsets, lengths and addresses on every file system that matters here.
inline constexpr std::uint64_t align_bytes = 4096;

enum class Method { threads, io_uring };

struct Piece {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::uint8_t *out = nullptr;
};

struct ReadOptions {
    bool direct = true;
    Method method = Method::threads;
    unsigned in_flight = 1;
};

// Called with the index of a piece once it is read; with Method::threads by the thread that read it.
using OnPiece = std::function<void(std::size_t index)>;

// Reads all pieces. Throws std::runtime_error on any failure, also when the file is too short.
void read_pieces(const std::string &path, const ReadOptions &options, const std::vector<Piece> &pieces,
                 const OnPiece &on_piece = nullptr);

// The file in blocks, written round and round into a window of memory. The last block of an unaligned file is cut to
// whole alignments.
std::vector<Piece> blocks_of(std::uint64_t file_bytes, std::uint64_t block_bytes, std::uint8_t *window,
                             std::uint64_t window_bytes);

// How much of some memory is there before it is used: nothing, every page, or huge pages where the system has them.
enum class Pages { untouched, small, huge };

// Anonymous memory, unmapped at the end.
class Memory {
  public:
    Memory(std::uint64_t bytes, Pages pages);
    ~Memory();
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    std::uint8_t *data() const { return data_; }
    std::uint64_t bytes() const { return bytes_; }

  private:
    std::uint8_t *data_ = nullptr;
    std::uint64_t bytes_ = 0;
};

// Drops a file's pages from the page cache and returns how many of its bytes mincore still finds there.
std::uint64_t evict(const std::string &path);

std::uint64_t file_bytes(const std::string &path);

double now_ms();

// Processor time of all threads of this process, user and system.
double cpu_ms();

}  // namespace bench
