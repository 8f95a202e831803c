"""The servers that benchmarks/compare compares: what each needs, how it is built and run."""
import glob
import json
import os
import shutil
import subprocess
import sys

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
peers = os.path.join(root, "benchmarks", "peers")
crates = "/usr/share/cargo/registry"  # where Debian's packages put the sources of crates

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
BUILD_TIMEOUT = 300  # seconds


class left_out(Exception):
    """Why a server is not compared."""


def compiler():
    return os.environ.get("CXX", "g++").split()


def has_header(header):
    """Whether the compiler finds the header."""
    text = f"#if !__has_include(<{header}>)\n#error missing\n#endif\n"
    return subprocess.run([*compiler(), "-E", "-x", "c++", "-"], input=text, text=True,
                          capture_output=True).returncode == 0


def run_measured(command, **more):
    """Processor seconds of the command and all that it starts; what it says, where it fails."""
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, **more)
    after = os.times()
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line), lines[0] if lines else "nothing")
        raise left_out(f"{command[0]} fails: {said.strip()}")
    return (after.children_user - before.children_user +
            after.children_system - before.children_system)


class server:
    """One server. `name` is for --servers, `title` for tables; `kind` is ours, floor or peer."""
    package = None  # the Debian package to install where something is missing
    instructions = True  # whether callgrind understands it

    def __init__(self, name, title, kind="peer"):
        self.name, self.title, self.kind = name, title, kind
        self.command = None  # once it is built
        self.compile_seconds = None  # what one pays again after a change: dependencies stand
        self.stripped_bytes = None  # without the shared libraries that it uses

    def missing(self):
        """Whether something it needs is not there."""
        return False

    def prepare(self, folder, repeats):
        """Builds it and measures that, or raises left_out."""
        if self.missing():
            raise left_out(f"install {self.package} to compare it")
        self.build(folder, repeats)

    def measure_build(self, folder, repeats, program, sources, build):
        """Builds in the folder unless that was done from the same sources; the median counts."""
        path = os.path.join(folder, program)
        record = path + ".json"
        key = [compiler(), max(os.path.getmtime(source) for source in sources)]
        if os.path.exists(record) and os.path.exists(path):
            with open(record) as known:
                known = json.load(known)
            if known["key"] == key and known["repeats"] >= repeats:
                self.compile_seconds, self.stripped_bytes = known["seconds"], known["bytes"]
                return path
        seconds = sorted(build(attempt) for attempt in range(repeats))
        self.compile_seconds = seconds[len(seconds) // 2]
        self.stripped_bytes = stripped_size(path)
        with open(record, "w") as known:
            json.dump({"key": key, "repeats": repeats, "seconds": self.compile_seconds,
                       "bytes": self.stripped_bytes}, known)
        return path


def stripped_size(program):
    copy = program + ".stripped"
    shutil.copy(program, copy)
    subprocess.run(["strip", copy], check=True)
    size = os.path.getsize(copy)
    os.remove(copy)
    return size


def below(*folders):
    """All files of ours that a program may be made of."""
    found = []
    for folder in folders:
        for place, _, names in os.walk(os.path.join(root, folder)):
            found += [os.path.join(place, name) for name in names if not name.endswith(".pyc")]
    return found


class cpp(server):
    """A server of one file. Its libraries' headers are for the compiler the system's."""

    def __init__(self, name, title, source, kind="peer", header=None, package=None, libraries=()):
        super().__init__(name, title, kind)
        self.source, self.header, self.package = source, header, package
        self.libraries = ["-l" + library for library in libraries]

    def missing(self):
        return self.header is not None and not has_header(self.header)

    def compile(self, source, program):
        include = "-I" + os.path.join(root, "include")
        return run_measured([*compiler(), "-O2", "-std=c++20", *STRICT, include, source, "-o",
                             program, *self.libraries])

    def build(self, folder, repeats):
        source = os.path.join(root, "benchmarks", self.source)
        program = os.path.splitext(os.path.basename(source))[0]
        headers = glob.glob(os.path.join(os.path.dirname(source), "*.hpp"))
        path = self.measure_build(folder, repeats, program, [source, *headers],
                                  lambda _: self.compile(source, os.path.join(folder, program)))
        self.command = [path, "0"]


class ours(cpp):
    """echo_server, which has an engine and a handler as flags. What it costs to compile is told
    by the example programs, which are as long as the peers'."""

    def __init__(self, name, title, engine, handler):
        super().__init__(name, title, "echo_server.cpp", kind="ours")
        self.flags = ["--host", "127.0.0.1", "--port", "0", "--engine", engine, "--handler", handler]
        self.engine, self.handler = engine, handler
        self.instructions = engine == "epoll"

    def example(self):
        """The text of the program whose cost is told; none for a coroutine on io_uring."""
        name = "echo.cpp" if self.handler == "hooks" else "echo_coroutine.cpp"
        with open(os.path.join(root, "examples", name)) as source:
            text = source.read()
        if self.engine == "epoll":
            return text
        if self.handler == "coroutine":
            return None
        return "#include <tcp/engine/io_uring/io_uring_engine.hpp>\n" + text.replace(
            "tcp::server<echo>", "tcp::server<echo, tcp::io_uring_engine>")

    def build(self, folder, repeats):
        sources = below("include", "examples")
        source = os.path.join(root, "benchmarks", self.source)
        program = os.path.join(folder, "echo_server")
        if not os.path.exists(program) or os.path.getmtime(program) < max(
                os.path.getmtime(one) for one in [source, *sources]):
            self.compile(source, program)
        self.command = [program, *self.flags]
        text = self.example()
        if text is not None:
            example = os.path.join(folder, self.name + ".cpp")
            with open(example, "w") as file:
                file.write(text)
            self.measure_build(folder, repeats, self.name, sources,
                               lambda _: self.compile(example, os.path.join(folder, self.name)))


class go(server):
    package, instructions = "golang-go", False

    def missing(self):
        return not shutil.which("go")

    def build(self, folder, repeats):
        source = os.path.join(peers, "go.go")
        copy = os.path.join(folder, "go.go")
        program = os.path.join(folder, "go_echo")
        environment = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local",
                       "GOFLAGS": "-mod=mod", "GOCACHE": os.path.join(folder, "go_cache")}

        def build(attempt):
            # What was built already is not built again, so each attempt has another text.
            with open(source) as original, open(copy, "w") as changed:
                changed.write(original.read() + f"\n// {attempt} {os.urandom(8).hex()}\n")
            return run_measured(["go", "build", "-o", program, copy], env=environment)

        if not os.path.exists(program):
            build(0)  # the standard library
        self.command = [self.measure_build(folder, repeats, "go_echo", [source], build), "0"]


class tokio(server):
    package = "librust-tokio-dev"

    def missing(self):
        if not shutil.which("cargo"):
            self.package = "cargo and librust-tokio-dev"
            return True
        return not glob.glob(os.path.join(crates, "tokio-[0-9]*"))

    def build(self, folder, repeats):
        here = os.path.join(folder, "tokio")
        sources = [os.path.join(peers, "tokio", name) for name in ("Cargo.toml", "main.rs")]
        os.makedirs(here, exist_ok=True)
        for source in sources:
            shutil.copy(source, here)  # cargo writes beside them
        command = ["cargo", "build", "-q", "--release", "--offline",
                   "--config", 'source.crates-io.replace-with="debian"',
                   "--config", f'source.debian.directory="{crates}"']

        def build(attempt):
            os.utime(os.path.join(here, "main.rs"))
            return run_measured(command, cwd=here)

        program = os.path.join("tokio", "target", "release", "tokio_echo")
        if not os.path.exists(os.path.join(folder, program)):
            build(0)  # with all that it depends on
        self.command = [self.measure_build(folder, repeats, program, sources, build), "0"]


class script(server):
    """A program that an interpreter runs: nothing to build."""
    instructions = False

    def __init__(self, name, title, source, package):
        super().__init__(name, title)
        self.source, self.package = source, package

    def interpreter(self):
        return shutil.which(self.name)

    def missing(self):
        return self.interpreter() is None

    def build(self, folder, repeats):
        copy = os.path.join(folder, self.source)
        shutil.copy(os.path.join(peers, self.source), copy)
        self.command = [self.interpreter(), copy, "0"]


class uvloop(script):
    def interpreter(self):
        """The first Python that has the module."""
        for python in (sys.executable, "/usr/bin/python3"):
            if os.path.exists(python) and subprocess.run(
                    [python, "-c", "import uvloop"], capture_output=True).returncode == 0:
                return python
        return None


FLOOR, AGAIN = "floor_epoll", "floor_epoll_again"


def all_servers():
    bare_ring = cpp("floor_io_uring", "bare io_uring", "floor_io_uring.cpp", kind="floor")
    bare_ring.instructions = False
    return [
        ours("ours_epoll", "ours epoll", "epoll", "hooks"),
        ours("ours_epoll_coroutine", "ours epoll coroutine", "epoll", "coroutine"),
        ours("ours_io_uring", "ours io_uring", "io_uring", "hooks"),
        ours("ours_io_uring_coroutine", "ours io_uring coroutine", "io_uring", "coroutine"),
        cpp(FLOOR, "bare epoll", "floor_epoll.cpp", kind="floor"),
        # The same once more: how far its figures differ is how far any figure is to be believed.
        cpp(AGAIN, "bare epoll again", "floor_epoll.cpp", kind="again"),
        bare_ring,
        cpp("asio", "Asio", "peers/asio.cpp", header="asio.hpp", package="libasio-dev"),
        cpp("asio_coroutine", "Asio coroutine", "peers/asio_coroutine.cpp", header="asio.hpp",
            package="libasio-dev"),
        cpp("libuv", "libuv", "peers/libuv.cpp", header="uv.h", package="libuv1-dev",
            libraries=["uv"]),
        cpp("libevent", "libevent", "peers/libevent.cpp", header="event2/event.h",
            package="libevent-dev", libraries=["event_core"]),
        cpp("libev", "libev", "peers/libev.cpp", header="ev.h", package="libev-dev",
            libraries=["ev"]),
        cpp("poco", "Poco", "peers/poco.cpp", header="Poco/Net/SocketReactor.h",
            package="libpoco-dev", libraries=["PocoNet", "PocoFoundation"]),
        go("go", "Go net"),
        tokio("tokio", "tokio"),
        script("node", "Node", "node.js", "nodejs"),
        uvloop("uvloop", "uvloop", "uvloop_echo.py", "python3-uvloop"),
    ]
