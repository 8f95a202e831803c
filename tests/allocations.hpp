// Counts the allocations of a test program, and lets one fail. One file of the program includes
// count_allocations.hpp, which replaces operator new.
#pragma once

#include <cstddef>

/// Of the thread that asks.
namespace allocations {

extern const bool counted;                // false where operator new is the sanitizer's
extern thread_local std::size_t made;     // since the thread began
extern thread_local std::size_t live;     // made and not given back
extern thread_local std::size_t fail_in;  // 1: the next one fails; 0: none does

}  // namespace allocations
