#!/usr/bin/env python3
"""Checks that README.md tells the truth: its programs compile, its commands run.

The first C++ block is examples/echo.cpp, byte for byte, and others are
examples/echo_coroutine.cpp, chat.cpp and send_file.cpp. The first shell block is the two commands of
the first screen: the compiler line is run as it stands and what it builds must echo; tests/run must
be there. Every other C++ block that includes something is compiled, and run if it is a simulation.
"""

import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMPILER = os.environ.get("CXX", "c++")


def fail(sentence):
    sys.exit("readme: " + sentence)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_echo(program):
    """Starts the program on a port and has a client sent back what it says."""
    port = free_port()
    server = subprocess.Popen([program, str(port)])
    try:
        for _ in range(100):
            try:
                client = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except ConnectionRefusedError:
                if server.poll() is not None:
                    fail(f"{program} {port} ended with exit code {server.returncode}.")
                time.sleep(0.05)
        else:
            fail(f"{program} {port} does not listen.")
        with client:
            said = b"hello, echo\n" * 1000
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            heard = b"".join(iter(lambda: client.recv(65536), b""))
        if heard != said:
            fail(f"{program} sent back {len(heard)} bytes that are not the {len(said)} it was sent.")
    finally:
        server.kill()
        server.wait()


text = (ROOT / "README.md").read_text()
blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
programs = [body for language, body in blocks if language == "cpp"]
commands = next((body for language, body in blocks if language == "sh"), "").splitlines()

if not programs or programs[0] != (ROOT / "examples/echo.cpp").read_text():
    fail("the first C++ block is not examples/echo.cpp; make them the same, byte for byte.")
for name in ("examples/echo_coroutine.cpp", "examples/chat.cpp", "examples/send_file.cpp"):
    if (ROOT / name).read_text() not in programs:
        fail(f"no C++ block is {name}; make them the same, byte for byte.")
if len(commands) != 2:
    fail("the first shell block should be two commands: the compiler line and tests/run.")

build, _, run = commands[0].partition("&&")
if run.split("#")[0].strip() != "./echo" or shlex.split(build)[0] != "c++":
    fail("the first command should be a compiler line, then && ./echo.")
tests = shlex.split(commands[1], comments=True)
if tests != ["tests/run"] or not os.access(ROOT / tests[0], os.X_OK):
    fail("the second command should be tests/run, and that should be executable.")

with tempfile.TemporaryDirectory() as folder:
    for name in ("include", "examples"):
        pathlib.Path(folder, name).symlink_to(ROOT / name)
    # c++ is whichever compiler the test is about
    subprocess.run([COMPILER] + shlex.split(build)[1:], cwd=folder, check=True)
    check_echo(str(pathlib.Path(folder, "echo")))

compiled = 1
for program in programs[1:]:
    if "#include" not in program:
        continue
    with tempfile.TemporaryDirectory() as folder:
        binary = pathlib.Path(folder, "program")
        runs = "tcp::simulation" in program
        result = subprocess.run([COMPILER, "-std=c++20", "-Wall", "-Wextra", "-I",
                                 str(ROOT / "include"), "-x", "c++", "-"] +
                                (["-o", str(binary)] if runs else ["-fsyntax-only"]),
                                input=program, text=True, capture_output=True)
        if result.returncode != 0 or result.stderr:
            fail(f"{COMPILER} does not take this program:\n\n{program}\n{result.stderr}")
        if runs and subprocess.run([binary]).returncode != 0:
            fail(f"this program fails:\n\n{program}")
    compiled += 1

for header, names in (("options", r"^    [\w:]+ (\w+) = .*;"), ("close_reason", r"^    (\w+),"),
                      ("handler", r"^//.*\b(on_\w+)\(")):
    first_definition = (ROOT / f"include/tcp/{header}.hpp").read_text().split("\n};")[0]
    for name in re.findall(names, first_definition, re.M):
        if not re.search(rf"\b{name}\b", text):
            fail(f"{name} of tcp/{header}.hpp is not mentioned.")

prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)  # a lambda looks like a link
for name in set(re.findall(r"\]\((?!https?:|#)([^)#]+)\)", prose)):
    if not (ROOT / name).exists():
        fail(f"the link to {name} leads nowhere.")

print(f"readme: {compiled} programs compile, echo echoes, and both commands are there")
