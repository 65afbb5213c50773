// Owners of what the system lends: a file descriptor and a mapping. Both give it back exactly once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "io/env.h"

namespace sllm {

class OwnedFd {
public:
    OwnedFd() = default;
    // Takes a descriptor over; a negative one means none.
    OwnedFd(Env &env, int fd) : env_(&env), fd_(fd) {}
    OwnedFd(OwnedFd &&other) noexcept : env_(other.env_), fd_(std::exchange(other.fd_, -1)) {}
    OwnedFd &operator=(OwnedFd &&other) noexcept {
        if (this != &other) {
            reset();
            env_ = other.env_;
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    ~OwnedFd() { reset(); }

    int get() const { return fd_; }
    bool valid() const { return fd_ >= 0; }
    void reset() {
        if (fd_ >= 0) env_->close(std::exchange(fd_, -1));
    }

private:
    Env *env_ = nullptr;
    int fd_ = -1;
};

class Mapping {
public:
    Mapping() = default;
    // Takes [address, address + bytes) over, both multiples of the page size.
    Mapping(Env &env, void *address, std::size_t bytes) : env_(&env), address_(address), bytes_(bytes) {}
    Mapping(Mapping &&other) noexcept
        : env_(other.env_), address_(std::exchange(other.address_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Mapping &operator=(Mapping &&other) noexcept {
        if (this != &other) {
            reset();
            env_ = other.env_;
            address_ = std::exchange(other.address_, nullptr);
            bytes_ = std::exchange(other.bytes_, 0);
        }
        return *this;
    }
    ~Mapping() { reset(); }

    std::uint8_t *data() const { return static_cast<std::uint8_t *>(address_); }
    std::size_t bytes() const { return bytes_; }
    bool valid() const { return address_ != nullptr; }
    void reset() {
        if (address_ != nullptr) env_->unmap(std::exchange(address_, nullptr), std::exchange(bytes_, 0));
    }

private:
    Env *env_ = nullptr;
    void *address_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace sllm
