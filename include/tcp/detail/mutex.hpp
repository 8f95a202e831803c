// A lock for what several threads touch. The header <mutex> would cost a fifth of a second in every
// compilation; pthread_mutex_lock(3) is there already.
#pragma once

#include <pthread.h>

namespace tcp::inline v0_1::detail {

class mutex {
public:
    mutex() = default;
    mutex(const mutex&) = delete;
    mutex& operator=(const mutex&) = delete;

    /// Holds the lock as long as it lives.
    class guard {
    public:
        explicit guard(mutex& m) noexcept : m_{m} { ::pthread_mutex_lock(&m_.mutex_); }
        guard(const guard&) = delete;
        guard& operator=(const guard&) = delete;
        ~guard() { ::pthread_mutex_unlock(&m_.mutex_); }

    private:
        mutex& m_;
    };

private:
    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
};

}  // namespace tcp::inline v0_1::detail
