// The system's socket headers. The one place, besides the choice of the native engine, that asks
// which system this is.
#pragma once

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
