// Reserving more than needed and giving the unaligned ends back.
#include "io/address_space.h"

#include <sys/mman.h>

namespace sllm {

Status reserve_addresses(Env &env, std::uint64_t bytes, Mapping *out) {
    const std::uint64_t rounded = in_huge_pages(bytes);
    void *memory = nullptr;
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const int error = env.map(nullptr, rounded + huge_page_bytes, PROT_NONE, flags, -1, 0, &memory);
    if (error < 0) return system_status("reserve " + std::to_string(rounded) + " bytes of address space", -error);
    auto *base = static_cast<std::uint8_t *>(memory);
    const std::uint64_t beyond = reinterpret_cast<std::uintptr_t>(base) % huge_page_bytes;
    const std::uint64_t before = beyond == 0 ? 0 : huge_page_bytes - beyond;
    if (before > 0) env.unmap(base, before);
    if (huge_page_bytes > before) env.unmap(base + before + rounded, huge_page_bytes - before);
    *out = Mapping(env, base + before, rounded);
    return {};
}

}  // namespace sllm
