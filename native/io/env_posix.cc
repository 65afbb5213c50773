// The system calls themselves.
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/memfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>
#include <thread>

#include "io/env.h"
#include "io/ring.h"
#include "io/thread_reads.h"

namespace sllm {

int Env::open(const char *path, int flags) {
    const int fd = ::open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int Env::close(int fd) { return ::close(fd) < 0 ? -errno : 0; }

ssize_t Env::pread(int fd, void *out, std::size_t bytes, std::uint64_t offset) {
    const ssize_t n = ::pread(fd, out, bytes, static_cast<off_t>(offset));
    return n < 0 ? -errno : n;
}

ssize_t Env::pwrite(int fd, const void *data, std::size_t bytes, std::uint64_t offset) {
    const ssize_t n = ::pwrite(fd, data, bytes, static_cast<off_t>(offset));
    return n < 0 ? -errno : n;
}

std::int64_t Env::cached_bytes(int fd, std::uint64_t offset, std::uint64_t bytes) {
    // struct cachestat_range and struct cachestat of linux/mman.h, which older headers lack, and so the number.
    constexpr long cachestat = 451;
    const std::uint64_t range[2] = {offset, bytes};
    std::uint64_t pages[5] = {};  // the first: pages in the cache
    if (::syscall(cachestat, fd, range, pages, 0) < 0) return -errno;
    return static_cast<std::int64_t>(pages[0]) * ::sysconf(_SC_PAGESIZE);
}

int Env::make_read_queue(ReadMethod method, std::uint32_t depth, std::uint32_t buffers,
                         std::unique_ptr<ReadQueue> *out) {
    if (method == ReadMethod::ring) return Ring::create(*this, depth, buffers, out);
    *out = std::make_unique<ThreadReads>(*this, depth);
    return 0;
}

std::int64_t Env::file_system_of(int fd) {
    struct statfs system {};
    struct stat facts {};
    if (::fstatfs(fd, &system) < 0 || ::fstat(fd, &facts) < 0) return -errno;
    std::uint64_t number = 0;
    static_assert(sizeof system.f_fsid == sizeof number);
    std::memcpy(&number, &system.f_fsid, sizeof number);
    // Some file systems have no number of their own. The sign is for errors.
    if (number == 0) number = facts.st_dev;
    return static_cast<std::int64_t>(number & INT64_MAX);
}

std::int64_t Env::file_size(int fd) {
    struct stat facts {};
    return ::fstat(fd, &facts) < 0 ? -errno : facts.st_size;
}

namespace {

int create_memory_file(const char *name, std::uint64_t bytes, unsigned flags) {
    const int fd = ::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    if (fd < 0) return -errno;
    if (::ftruncate(fd, static_cast<off_t>(bytes)) < 0 || ::fchmod(fd, S_IRUSR) < 0) {
        const int error = errno;
        ::close(fd);
        return -error;
    }
    return fd;
}

}  // namespace

int Env::create_memory(const char *name, std::uint64_t bytes) { return create_memory_file(name, bytes, 0); }

int Env::create_reserved_memory(const char *name, std::uint64_t bytes) {
    return create_memory_file(name, bytes, MFD_HUGETLB | MFD_HUGE_2MB);
}

int Env::punch_hole(int fd, std::uint64_t offset, std::uint64_t bytes) {
    constexpr int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return ::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(bytes)) < 0 ? -errno : 0;
}

int Env::share_writable(int fd) { return ::fchmod(fd, S_IRUSR | S_IWUSR) < 0 ? -errno : 0; }

int Env::seal(int fd, int seals) { return ::fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0; }

int Env::map(void *address, std::size_t bytes, int protection, int flags, int fd, std::uint64_t offset, void **out) {
    void *result = ::mmap(address, bytes, protection, flags, fd, static_cast<off_t>(offset));
    if (result == MAP_FAILED) return -errno;
    *out = result;
    return 0;
}

int Env::unmap(void *address, std::size_t bytes) { return ::munmap(address, bytes) < 0 ? -errno : 0; }

int Env::advise(void *address, std::size_t bytes, int advice) {
    return ::madvise(address, bytes, advice) < 0 ? -errno : 0;
}

void Env::futex_wait(const std::atomic<std::uint32_t> *word, std::uint32_t expected, std::uint64_t timeout_us) {
    const timespec timeout{static_cast<time_t>(timeout_us / 1'000'000),
                           static_cast<long>(timeout_us % 1'000'000) * 1'000};
    // Whatever ends the wait, the caller looks at the word again.
    ::syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, nullptr, 0);
}

void Env::futex_wake_all(std::atomic<std::uint32_t> *word) {
    ::syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

std::uint32_t Env::processors() {
    double usable = std::max(1u, std::thread::hardware_concurrency());
    std::ifstream quota("/sys/fs/cgroup/cpu.max");  // "max 100000" or "<quota> <period>", in microseconds
    double allowed = 0;
    double period = 0;
    if (quota >> allowed >> period && allowed > 0 && period > 0) usable = std::min(usable, allowed / period);
    return std::max(1u, static_cast<std::uint32_t>(usable));
}

std::uint64_t Env::physical_memory() {
    return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::int32_t Env::process_id() { return ::getpid(); }

bool Env::process_exists(std::int32_t pid) { return ::kill(pid, 0) == 0 || errno == EPERM; }

double Env::now_ms() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(now).count();
}

void Env::raise_memory_lock_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    // A process may always do this; were it refused, less is registered.
    ::setrlimit(RLIMIT_MEMLOCK, &limit);
}

std::string Env::read_text(const std::string &path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

bool Env::write_text(const std::string &path, const std::string &text) {
    const std::string draft = path + "." + std::to_string(::getpid());
    std::ofstream out(draft);
    out << text;
    out.close();
    if (out.good() && ::rename(draft.c_str(), path.c_str()) == 0) return true;
    ::unlink(draft.c_str());
    return false;
}

double Env::thread_cpu_ms() {
    timespec used{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) * 1e3 + static_cast<double>(used.tv_nsec) / 1e6;
}

void Env::make_thread_idle() {
    const sched_param none{};
    // Refused only by unusual policies; the thread then runs like any other.
    ::sched_setscheduler(0, SCHED_IDLE, &none);
}

Env &Env::posix() {
    static Env env;
    return env;
}

}  // namespace sllm
