// Slices of reading, and the choice.
#include "store/probe.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <sstream>

#include "core/limits.h"
#include "io/address_space.h"
#include "io/owned.h"

namespace sllm {

namespace {

constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;

constexpr ReadSettings candidates_of_probe[] = {
    {ReadMethod::ring, true, 4 * mebibyte, 64 * mebibyte},   {ReadMethod::ring, true, mebibyte, 32 * mebibyte},
    {ReadMethod::ring, true, 16 * mebibyte, 64 * mebibyte},  {ReadMethod::ring, true, mebibyte / 4, 16 * mebibyte},
    {ReadMethod::threads, true, 4 * mebibyte, 32 * mebibyte}, {ReadMethod::threads, false, mebibyte, 8 * mebibyte},
};

// Others must be this much faster than the first: less is chance.
constexpr double clearly_faster = 1.15;

// Reads of one candidate, in turns around the file.
class Slice {
public:
    Slice(Env &env, int fd, std::uint64_t file_bytes, const Mapping &memory, const ReadSettings &settings)
        : env_(env), fd_(fd), file_bytes_(file_bytes), memory_(memory), settings_(settings) {}

    // Bytes per second; 0 when it cannot be read so.
    double run(std::uint64_t *position, double slice_ms, const std::function<bool()> &go_on) {
        std::unique_ptr<ReadQueue> queue;
        if (env_.make_read_queue(settings_.method, settings_.depth(), 0, &queue) < 0) return 0;
        const double started = env_.now_ms();
        std::uint32_t in_flight = 0;
        for (; in_flight < settings_.depth(); in_flight++) add(*queue, in_flight, position);
        std::uint64_t bytes = 0;
        bool failed = false;
        std::vector<ReadResult> results;
        while (in_flight > 0) {
            queue->wait(&results);
            const bool more = !failed && env_.now_ms() - started < slice_ms && go_on();
            for (const ReadResult &result : results) {
                failed = failed || result.result <= 0;
                bytes += static_cast<std::uint64_t>(std::max<std::int64_t>(result.result, 0));
                if (more && !failed) add(*queue, result.tag, position);
                else in_flight--;
            }
            results.clear();
        }
        const double ms = env_.now_ms() - started;
        return failed || ms <= 0 ? 0 : static_cast<double>(bytes) / ms * 1e3;
    }

private:
    void add(ReadQueue &queue, std::uint64_t slot, std::uint64_t *position) {
        if (*position + settings_.block_bytes > file_bytes_) *position = 0;
        ReadOp op;
        op.fd = fd_;
        op.out = memory_.data() + slot * settings_.block_bytes;
        op.bytes = settings_.block_bytes;
        op.offset = *position;
        op.tag = slot;
        op.blocking = !settings_.direct;
        queue.add(op);
        *position += settings_.block_bytes;
    }

    Env &env_;
    const int fd_;
    const std::uint64_t file_bytes_;
    const Mapping &memory_;
    const ReadSettings &settings_;
};

// Memory as loads have it: faulted in, in huge pages where the system has them.
Status make_memory(Env &env, std::uint64_t bytes, Mapping *out) {
    if (Status s = reserve_addresses(env, bytes, out); !s.ok()) return s;
    void *memory = nullptr;
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    const int error = env.map(out->data(), out->bytes(), PROT_READ | PROT_WRITE, flags, -1, 0, &memory);
    if (error < 0) return system_status("allocate " + std::to_string(bytes) + " bytes to probe with", -error);
    // Either may be unknown to the kernel; the memory is then touched by the reads.
    env.advise(memory, out->bytes(), MADV_HUGEPAGE);
    env.advise(memory, out->bytes(), MADV_POPULATE_WRITE);
    return {};
}

}  // namespace

std::uint32_t ReadSettings::depth() const {
    return static_cast<std::uint32_t>(
        std::clamp<std::uint64_t>(in_flight_bytes / block_bytes, 1, limits::reads_in_flight));
}

std::span<const ReadSettings> probe_candidates() { return candidates_of_probe; }

Status probe(Env &env, const std::string &path, std::span<const ReadSettings> candidates, double slice_ms,
             const std::function<bool()> &go_on, ProbeResult *out) {
    const OwnedFd buffered(env, env.open(path.c_str(), O_RDONLY));
    if (!buffered.valid()) return system_status("open " + path, -buffered.get());
    const OwnedFd direct(env, env.open(path.c_str(), O_RDONLY | O_DIRECT));
    const std::int64_t size = env.file_size(buffered.get());
    if (size < 0) return system_status("stat " + path, static_cast<int>(-size));
    std::uint64_t window = 0;
    for (const ReadSettings &way : candidates) window = std::max(window, way.depth() * std::uint64_t{way.block_bytes});
    Mapping memory;
    if (Status s = make_memory(env, window, &memory); !s.ok()) return s;
    std::uint64_t position = 0;
    const auto rate_of = [&](const ReadSettings &way) -> double {
        const auto file_bytes = static_cast<std::uint64_t>(size);
        const OwnedFd &fd = way.direct ? direct : buffered;
        // What lies in the page cache tells nothing about the disk.
        const bool cached = !way.direct && env.cached_bytes(buffered.get(), 0, file_bytes) != 0;
        if (!fd.valid() || way.block_bytes > file_bytes || cached || !go_on()) return 0;
        return Slice(env, fd.get(), file_bytes, memory, way).run(&position, slice_ms, go_on);
    };
    std::vector<double> rates;
    for (const ReadSettings &way : candidates) rates.push_back(rate_of(way));
    // The first one had the disk when it had been idle; it is tried once more for fairness.
    rates.front() = std::max(rates.front(), rate_of(candidates.front()));
    const auto best = static_cast<std::size_t>(std::max_element(rates.begin(), rates.end()) - rates.begin());
    const std::size_t chosen = rates[best] > rates.front() * clearly_faster ? best : 0;
    if (!go_on() || rates[chosen] <= 0) return {Code::closed, "the probe of " + path + " found nothing"};
    *out = {candidates[chosen], rates[chosen]};
    return {};
}

std::string to_text(const ProbeResult &result) {
    const ReadSettings &s = result.settings;
    std::ostringstream text;
    text << (s.method == ReadMethod::ring ? "io_uring" : "threads") << (s.direct ? " direct " : " buffered ")
         << s.block_bytes << ' ' << s.in_flight_bytes << ' ' << static_cast<std::uint64_t>(result.bytes_per_second)
         << '\n';
    return text.str();
}

bool from_text(const std::string &text, ProbeResult *out) {
    std::istringstream in(text);
    std::string method;
    std::string mode;
    ProbeResult found;
    ReadSettings &s = found.settings;
    if (!(in >> method >> mode >> s.block_bytes >> s.in_flight_bytes >> found.bytes_per_second)) return false;
    if ((method != "io_uring" && method != "threads") || (mode != "direct" && mode != "buffered")) return false;
    s.method = method == "io_uring" ? ReadMethod::ring : ReadMethod::threads;
    s.direct = mode == "direct";
    const bool usable = s.block_bytes > 0 && s.block_bytes % limits::file_align_bytes == 0 &&
                        s.block_bytes <= limits::arena_chunk_bytes && s.in_flight_bytes >= s.block_bytes &&
                        s.in_flight_bytes <= limits::in_flight_bytes && found.bytes_per_second > 0;
    if (usable) *out = found;
    return usable;
}

}  // namespace sllm
