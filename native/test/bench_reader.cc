// Reading with threads, eviction and clocks; the ring is in bench_ring.cc.
#include "test/bench_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "test/bench_ring.h"

namespace bench {

namespace {

[[noreturn]] void fail(const std::string &what) { throw std::system_error(errno, std::generic_category(), what); }

class File {
  public:
    File(const std::string &path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC)) {
        if (fd_ < 0) fail("open " + path);
    }
    ~File() { ::close(fd_); }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    int fd() const { return fd_; }

  private:
    int fd_;
};

void read_piece(int fd, const Piece &piece) {
    for (std::uint64_t done = 0; done < piece.bytes;) {
        const ssize_t n =
            ::pread(fd, piece.out + done, piece.bytes - done, static_cast<off_t>(piece.offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail("read");
        if (n == 0) throw std::runtime_error("the file ends too early");
        done += static_cast<std::uint64_t>(n);
    }
}

void read_with_threads(int fd, unsigned count, const std::vector<Piece> &pieces, const OnPiece &on_piece) {
    std::atomic<std::size_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;
    const auto work = [&] {
        try {
            for (std::size_t i = next++; i < pieces.size(); i = next++) {
                read_piece(fd, pieces[i]);
                if (on_piece) on_piece(i);
            }
        } catch (...) {
            const std::lock_guard lock(mutex);
            failure = std::current_exception();
            next = pieces.size();
        }
    };
    std::vector<std::thread> others;
    for (unsigned i = 1; i < count; i++) others.emplace_back(work);
    work();
    for (std::thread &thread : others) thread.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace

void read_pieces(const std::string &path, const ReadOptions &options, const std::vector<Piece> &pieces,
                 const OnPiece &on_piece) {
    const File file(path, O_RDONLY | (options.direct ? O_DIRECT : 0));
    if (options.method == Method::io_uring) {
        read_with_ring(file.fd(), options.in_flight, pieces, on_piece);
    } else {
        read_with_threads(file.fd(), options.in_flight, pieces, on_piece);
    }
}

std::vector<Piece> blocks_of(std::uint64_t total, std::uint64_t block, std::uint8_t *window, std::uint64_t size) {
    const std::uint64_t end = total / align_bytes * align_bytes;
    const std::uint64_t slots = std::max<std::uint64_t>(size / block, 1);
    std::vector<Piece> pieces;
    for (std::uint64_t at = 0; at < end; at += block) {
        pieces.push_back({at, std::min(block, end - at), window + pieces.size() % slots * block});
    }
    return pieces;
}

Memory::Memory(std::uint64_t bytes, Pages pages) : bytes_(std::max(bytes, align_bytes)) {
    void *at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) fail("map memory");
    data_ = static_cast<std::uint8_t *>(at);
    // Some systems give huge pages unasked, others not even then: the touch below takes what there is.
    (void)::madvise(data_, bytes_, pages == Pages::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    if (pages == Pages::untouched) return;
    for (std::uint64_t i = 0; i < bytes_; i += align_bytes) data_[i] = 1;
}

Memory::~Memory() { ::munmap(data_, bytes_); }

std::uint64_t file_bytes(const std::string &path) {
    struct stat facts {};
    if (::stat(path.c_str(), &facts) != 0) fail("stat " + path);
    return static_cast<std::uint64_t>(facts.st_size);
}

std::uint64_t evict(const std::string &path) {
    const File file(path, O_RDONLY);
    const std::uint64_t bytes = file_bytes(path);
    if (bytes == 0) return 0;
    // Pages that are not on disk yet cannot be dropped.
    if (::fdatasync(file.fd()) != 0) fail("write back " + path);
    if (const int error = ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED); error != 0) {
        throw std::system_error(error, std::generic_category(), "evict " + path);
    }
    void *mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd(), 0);
    if (mapped == MAP_FAILED) fail("map " + path);
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::vector<unsigned char> resident((bytes - 1) / page + 1);
    const int result = ::mincore(mapped, bytes, resident.data());
    ::munmap(mapped, bytes);
    if (result != 0) fail("mincore " + path);
    const auto pages = std::count_if(resident.begin(), resident.end(), [](unsigned char c) { return (c & 1) != 0; });
    return static_cast<std::uint64_t>(pages) * page;
}

double now_ms() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(now).count();
}

double cpu_ms() {
    struct rusage usage {};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto ms = [](const timeval &t) {
        return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) / 1e3;
    };
    return ms(usage.ru_utime) + ms(usage.ru_stime);
}

}  // namespace bench
