// The system's socket headers. The one place, besides the choice of the default engine, that asks
// which system this is, and what the compiler was told: other headers include it before all that a
// compiler might stumble over.
#pragma once

#if __cplusplus < 202002L
#    error "tcp: C++20 is needed; compile with -std=c++20."
#endif
#if !defined(__cpp_exceptions)
#    error "tcp: exceptions are needed; compile without -fno-exceptions."
#endif

#if defined(__linux__)

#    include <arpa/inet.h>
#    include <fcntl.h>
#    include <net/if.h>
#    include <netdb.h>
#    include <netinet/in.h>
#    include <netinet/tcp.h>
#    include <sys/file.h>
#    include <sys/socket.h>
#    include <sys/stat.h>
#    include <sys/types.h>
#    include <sys/un.h>
#    include <unistd.h>
#    include <cerrno>

#else
#    error "tcp: Linux is the one system supported so far; macOS, the BSDs and Windows are not yet."
#endif
