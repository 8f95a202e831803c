#include "other.hpp"

#include <tcp.hpp>

int version() { return tcp::version_major * 100 + tcp::version_minor; }
