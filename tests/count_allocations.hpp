// Replaces operator new: for one file of a test program, in which allocations.hpp then counts.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#include "allocations.hpp"

#if defined(__has_feature)
#    if __has_feature(thread_sanitizer)
#        define ALLOCATIONS_ARE_THE_SANITIZERS
#    endif
#endif

namespace allocations {

#ifdef ALLOCATIONS_ARE_THE_SANITIZERS  // its operator new cannot be replaced
const bool counted = false;
#else
const bool counted = true;
#endif

thread_local std::size_t made = 0;
thread_local std::size_t live = 0;
thread_local std::size_t fail_in = 0;

}  // namespace allocations

#ifndef ALLOCATIONS_ARE_THE_SANITIZERS
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    if (allocations::fail_in != 0 && --allocations::fail_in == 0) return nullptr;
    void* const block = std::malloc(size != 0 ? size : 1);
    if (block == nullptr) return nullptr;
    ++allocations::made;
    ++allocations::live;
    return block;
}
void* operator new[](std::size_t size, const std::nothrow_t& may_fail) noexcept {
    return ::operator new(size, may_fail);
}
void* operator new(std::size_t size) {
    void* const block = ::operator new(size, std::nothrow);
    if (block == nullptr) throw std::bad_alloc{};
    return block;
}
void* operator new[](std::size_t size) { return ::operator new(size); }

// Not inline: g++ would take new and free() for a mismatch of its own finding.
[[gnu::noinline]] void operator delete(void* block) noexcept {
    if (block != nullptr) --allocations::live;
    std::free(block);
}
void operator delete[](void* block) noexcept { ::operator delete(block); }
void operator delete(void* block, std::size_t) noexcept { ::operator delete(block); }
void operator delete[](void* block, std::size_t) noexcept { ::operator delete(block); }
#endif
