"""What benchmarks/compare makes of its figures: tables as text and as Markdown, and plots."""
import datetime
import os
import shutil
import subprocess

FLOOR, AGAIN = "floor_epoll", "floor_epoll_again"
OURS = ("ours_epoll", "ours_io_uring")  # by their hooks; what is said about losses is about these
BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
PACKAGES = ("libasio-dev", "libuv1-dev", "libevent-dev", "libev-dev", "libpoco-dev", "golang-go",
            "librust-tokio-dev", "nodejs", "python3-uvloop")


def first_line(*command):
    if not shutil.which(command[0]):
        return ""
    said = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return said[0] if said else ""


def machine(compiler, congestion_control):
    with open("/proc/cpuinfo") as lines:
        models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{len(models)} × {models[0]}" if models else f"{os.cpu_count()} processors"
    versions = []
    for package in PACKAGES:
        version = first_line("dpkg-query", "-W", "-f", "${Version}", package)
        if version:
            versions.append(f"{package} {version.split(':')[-1].split('+')[0].split('-')[0]}")
    rust = first_line("rustc", "--version").split(" (")[0]
    return ", ".join([processor, "Linux " + os.uname().release.split("-")[0], congestion_control,
                      first_line(*compiler, "--version"), *versions, *([rust] if rust else []),
                      datetime.date.today().isoformat()])


def quantile(values, share):
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def best_peer(results, rows, key, take):
    """The name of the peer with the best figure, and that figure."""
    peers = {name: row[key] for name, row in rows.items()
             if results["servers"][name]["kind"] == "peer" and row.get(key)}
    if not peers:
        return None, None
    name = take(peers, key=peers.get)
    return name, peers[name]


def rows_of(results, load):
    """What the tables tell about each server under this load."""
    measured = {name: one for name, one in results["loads"][load].items() if "error" not in one}
    rows = {}
    for name, one in measured.items():
        loaded = one["measured"]
        rows[name] = {
            "rate": quantile(loaded["per_second"], 0.5), "cpu": min(loaded["cpu_ns"]),
            "cpu_median": quantile(loaded["cpu_ns"], 0.5), "p50": loaded["p50_us"],
            "p99": loaded["p99_us"], "p999": loaded["p999_us"]}
        if "quiet" in one:
            rows[name]["quiet"] = one["quiet"]["p99_us"]
            rows[name]["worse"] = loaded["p99_us"] / one["quiet"]["p99_us"]
            rows[name]["flood"] = quantile(loaded["flood_mib_per_second"], 0.5)
        if FLOOR in measured:
            # Round by round, with the floor's round beside it: this is the spread of the ratio.
            paired = [mine / bare for mine, bare in
                      zip(loaded["cpu_ns"], measured[FLOOR]["measured"]["cpu_ns"])]
            rows[name]["low"], rows[name]["high"] = quantile(paired, 0.25), quantile(paired, 0.75)
            paired = [mine / bare for mine, bare in zip(loaded["per_second"],
                                                        measured[FLOOR]["measured"]["per_second"])]
            rows[name]["rate_low"] = quantile(paired, 0.25)
            rows[name]["rate_high"] = quantile(paired, 0.75)
    for key, take in (("rate", max), ("cpu", min), ("p99", min)):
        _, best = best_peer(results, rows, key, take)
        for row in rows.values():
            row[key + "_to_peer"] = row[key] / best if best else None
            row[key + "_to_floor"] = row[key] / rows[FLOOR][key] if FLOOR in rows else None
    return rows


def number(value, form="{:.2f}"):
    return "–" if value is None else form.format(value)


def load_table(results, load):
    rows = rows_of(results, load)
    flood = any("quiet" in row for row in rows.values())
    lines = [f"{load}: {results['titles'][load]}",
             f"{'':24}{'':>11}{'× bare':>8}{'middle':>13}{'× best':>8} |{'CPU ns,':>9}{'CPU ns,':>9}"
             f"{'× bare':>8}{'middle':>13}{'× best':>8} |{'p50':>9}{'p99':>9}{'p99.9':>9}" +
             (f"{'p99':>9}{'× quiet':>9}{'flood':>9}" if flood else ""),
             f"{'':24}{'a second':>11}{'epoll':>8}{'half':>13}{'peer':>8} |{'least':>9}{'median':>9}"
             f"{'epoll':>8}{'half':>13}{'peer':>8} |{'µs':>9}{'µs':>9}{'µs':>9}" +
             (f"{'quiet':>9}{'':>9}{'MiB/s':>9}" if flood else "")]
    for name, one in results["loads"][load].items():
        title = results["servers"][name]["title"]
        if name not in rows:
            lines.append(f"{title:24}  failed: {one['error']}")
            continue
        row = rows[name]

        def span(low, high):
            return f"{number(row.get(low))}–{number(row.get(high))}"
        lines.append(
            f"{title:24}{row['rate']:11,.0f}{number(row['rate_to_floor']):>8}"
            f"{span('rate_low', 'rate_high'):>13}{number(row['rate_to_peer']):>8} |"
            f"{row['cpu']:9,.0f}{row['cpu_median']:9,.0f}{number(row['cpu_to_floor']):>8}"
            f"{span('low', 'high'):>13}{number(row['cpu_to_peer']):>8} |"
            f"{row['p50']:9,.0f}{row['p99']:9,.0f}{row['p999']:9,.0f}" +
            (f"{row['quiet']:9,.0f}{row['worse']:9.1f}{row['flood']:9,.0f}" if flood else ""))
    return "\n".join(lines)


COSTS = [("memory", "idle_bytes", "bytes for each idle connection"),
         ("instructions", "instructions", "user instructions for each echo"),
         ("compile_seconds", None, "seconds to compile"), ("stripped_bytes", None, "KB stripped")]


def cost(results, name, what, key):
    if key is None:
        return results["servers"][name].get(what)
    return results["costs"].get(what, {}).get(name, {}).get(key)


def cost_rows(results):
    rows = {name: {what: cost(results, name, what, key) for what, key, _ in COSTS}
            for name, one in results["servers"].items() if one["kind"] != "again"}
    for row in rows.values():
        if row["stripped_bytes"]:
            row["stripped_bytes"] /= 1000
    return rows


def cost_text(what, value):
    return number(value, "{:.2f}" if what == "compile_seconds" else "{:,.0f}")


def cost_table(results):
    lines = [f"{'':24}{'bytes, idle':>14}{'instructions':>14}{'compile s':>14}{'KB stripped':>14}"]
    for name, row in cost_rows(results).items():
        lines.append(f"{results['servers'][name]['title']:24}" + "".join(
            f"{cost_text(what, row[what]):>14}" for what, _, _ in COSTS))
    return "\n".join(lines)


def noise_of(again, key):
    """How far the floor is from itself: in what is told, and in the middle half of the rounds."""
    said = {"cpu": ("cpu_to_floor", "low", "high"), "p99": ("p99_to_floor",),
            "rate": ("rate_to_floor", "rate_low", "rate_high")}[key]
    return max(abs((again.get(one) or 1) - 1) for one in said)


def losses(results):
    """Sentences: where a peer is better than ours by more than the floor differs from itself."""
    said = []
    titles = {name: one["title"] for name, one in results["servers"].items()}
    for load in ordered_loads(results):
        rows = rows_of(results, load)
        for key, what, take in (("cpu", "CPU", min), ("rate", "rate", max), ("p99", "p99", min)):
            peer, best = best_peer(results, rows, key, take)
            noise = max(0.1 if key == "p99" else 0.03, noise_of(rows.get(AGAIN, {}), key))
            for name in OURS:
                if not best or name not in rows or (load == "flood" and key != "p99"):
                    continue  # how much of the flood is served decides the others
                ratio = rows[name][key] / best
                worse = ratio - 1 if take is min else 1 / ratio - 1
                if worse > noise:
                    said.append(f"{results['titles'][load]}, {titles[name]}: {what} "
                                f"{ratio:.2f} of {titles[peer]}'s (noise {noise:.2f})")
    rows = cost_rows(results)
    for what, _, called in COSTS:
        peer, best = best_peer(results, rows, what, min)
        for name in OURS:
            mine = rows.get(name, {}).get(what)
            if best and mine and mine > best * 1.03:
                said.append(f"{called}, {titles[name]}: {cost_text(what, mine)}, "
                            f"{titles[peer]} {cost_text(what, best)}")
    return said


def losses_text(results):
    if not any(name in results["servers"] for name in OURS):
        return "Ours was not among them."
    said = losses(results)
    if not said:
        return "Ours loses to no peer by more than the noise."
    return "\n".join(["Where ours loses to a peer by more than the noise:", *said])


# ---- the section of README.md ----

def ordered_loads(results):
    return [load for load in results.get("titles", {}) if load in results["loads"]]


def markdown(head, lines):
    return ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|",
            *("| " + " | ".join(line) + " |" for line in lines)]


def matrix(results, loads, key, form="{:.2f}", best=min):
    """Servers by loads. The best of those that are no floor is bold."""
    tables = {load: rows_of(results, load) for load in loads}
    lines = []
    for name, one in results["servers"].items():
        line = [one["title"]]
        for load in loads:
            rows = {who: row[key] for who, row in tables[load].items() if row.get(key) is not None}
            real = [value for who, value in rows.items()
                    if results["servers"][who]["kind"] in ("ours", "peer")]
            text = number(rows.get(name), form)
            if name in rows and rows[name] in real and rows[name] == best(real):
                text = f"**{text}**"
            line.append(text)
        lines.append(line)
    return markdown(["", *(load.replace("x", " × ", 1).replace("x", " × ") for load in loads)], lines)


def section(results):
    rounds, milliseconds, starts = results["rounds"]
    loads = [load for load in ordered_loads(results) if load != "flood"]
    text = [BEGIN, f"Machine: {results['machine']}. {rounds} rounds of {milliseconds} ms for each "
            f"server and load, {starts} starts. “Bare epoll again” is the floor compared with "
            "itself: no figure is to be believed more closely than that. The best that is no bare "
            "loop is bold. Loads are connections × message, one in flight on each, or 16; idle is 200 "
            "connections × 64 B beside 800 idle ones. All figures with their spread: "
            "`figures/compare.txt`.", "",
            "![CPU for each message](plots/cpu.svg)", ""]
    bare = [number(rows_of(results, load).get(FLOOR, {}).get("cpu"), "{:,.0f}") for load in loads]
    table = matrix(results, loads, "cpu_to_floor")
    text += ["Processor time of the server for each message (each connection, under churn), to that "
             "of bare epoll; least of all rounds:", "", *table,
             "| bare epoll, ns | " + " | ".join(bare) + " |", ""]
    bare = [number(rows_of(results, load).get(FLOOR, {}).get("rate"), "{:,.0f}") for load in loads]
    text += ["Messages (connections, under churn) a second, to those of bare epoll; medians:", "",
             *matrix(results, loads, "rate_to_floor", best=max),
             "| bare epoll, a second | " + " | ".join(bare) + " |", "",
             "![Latency](plots/latency.svg)", "", "p99 in microseconds:", "",
             *matrix(results, loads, "p99", "{:,.0f}"), ""]
    if "flood" in results["loads"]:
        rows = rows_of(results, "flood")
        text += ["100 connections that ping, quiet and beside one that floods:", "", *markdown(
            ["", "p99 quiet, µs", "p99 beside the flood, µs", "ratio", "pings a second",
             "the flood, MiB/s"],
            [[results["servers"][name]["title"], f"{row['quiet']:,.0f}", f"{row['p99']:,.0f}",
              f"{row['worse']:.1f}", f"{row['rate']:,.0f}", f"{row['flood']:,.0f}"]
             for name, row in rows.items()]), ""]
    text += markdown(["", *(called for _, _, called in COSTS)], [
        [results["servers"][name]["title"], *(cost_text(what, row[what]) for what, _, _ in COSTS)]
        for name, row in cost_rows(results).items()])
    said = losses(results)
    text += ["", "Where ours loses to a peer by more than the noise:" if said else
             "Ours loses to no peer by more than the noise.", *([""] if said else []),
             *("* " + one for one in said), END]
    return "\n".join(text)


def write(results, benchmarks):
    """The section of README.md, the tables as text, and the plots."""
    path = os.path.join(benchmarks, "README.md")
    with open(path) as file:
        text = file.read()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    with open(path, "w") as file:
        file.write(before + section(results) + after)
    os.makedirs(os.path.join(benchmarks, "figures"), exist_ok=True)
    tables = [results["machine"], *(load_table(results, load) for load in ordered_loads(results)),
              cost_table(results)]
    with open(os.path.join(benchmarks, "figures", "compare.txt"), "w") as file:
        for line in "\n\n".join(tables).splitlines():
            file.write(line.rstrip() + "\n")
    import plots
    plots.draw(results, os.path.join(benchmarks, "plots"))
