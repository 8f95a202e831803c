// Every public header of the core. The simulation, for tests of handlers, is <tcp/simulation.hpp>.
#pragma once

#include <tcp/access_list.hpp>
#include <tcp/admission.hpp>
#include <tcp/bytes.hpp>
#include <tcp/close_reason.hpp>
#include <tcp/connection.hpp>
#include <tcp/connection_handle.hpp>
#include <tcp/duration.hpp>
#include <tcp/echo.hpp>
#include <tcp/endpoint.hpp>
#include <tcp/error.hpp>
#include <tcp/explain.hpp>
#include <tcp/group.hpp>
#include <tcp/handler.hpp>
#include <tcp/logged.hpp>
#include <tcp/options.hpp>
#include <tcp/prometheus.hpp>
#include <tcp/received.hpp>
#include <tcp/resolve.hpp>
#include <tcp/server.hpp>
#include <tcp/shared_bytes.hpp>
#include <tcp/statistics.hpp>
#include <tcp/stop_on.hpp>
#include <tcp/task.hpp>
#include <tcp/timer.hpp>
#include <tcp/version.hpp>
