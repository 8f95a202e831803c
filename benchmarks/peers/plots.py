"""The plots of benchmarks/README.md, drawn by gnuplot."""
import os
import shutil
import subprocess

import figures

# colour, kind of point, size; what is ours stands out
STYLES = {
    "ours_epoll": ("#0b5fff", 7, 1.0), "ours_io_uring": ("#e4002b", 7, 1.0),
    "floor_io_uring": ("#222222", 12, 0.8), "asio": ("#8c6d31", 5, 0.5),
    "asio_coroutine": ("#8c6d31", 4, 0.5), "libuv": ("#2ca02c", 9, 0.6),
    "libevent": ("#9467bd", 11, 0.6), "libev": ("#17becf", 13, 0.7), "poco": ("#bcbd22", 3, 0.5),
    "go": ("#00a5a5", 1, 0.6), "tokio": ("#ff7f0e", 2, 0.6), "node": ("#7f7f7f", 6, 0.5),
    "uvloop": ("#7f7f7f", 8, 0.6),
}
LATENCY_LOADS = (("64x64B", "64 connections"), ("1000x64B", "1,000 connections"),
                 ("flood", "100, beside a flood"))

TICKS = ("0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "100", "200", "500")


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def data(name, lines):
    return f"${name} << END\n" + "\n".join(lines) + "\nEND"


def gnuplot(path, width, height, commands):
    if not shutil.which("gnuplot"):
        print(f"{os.path.basename(path)} is not drawn; install gnuplot-nox")
        return
    script = "\n".join([f"set terminal svg size {width},{height} font 'sans-serif,12' "
                        "background '#ffffff' noenhanced", f"set output {quoted(path)}",
                        "set encoding utf8", *commands, ""])
    subprocess.run(["gnuplot"], input=script, text=True, check=True, timeout=60)
    with open(path) as file:
        lines = [line.rstrip().expandtabs(1) for line in file]
    with open(path, "w") as file:
        file.write("\n".join(line for line in lines if line) + "\n")


def cpu(results, path):
    loads = [load for load in figures.ordered_loads(results) if load != "flood"]
    rows = {load: figures.rows_of(results, load) for load in loads}
    names = [name for name in STYLES if any(name in rows[load] for load in loads)]
    labels = ", ".join(f"{quoted(load.replace('x', ' × '))} {-i}" for i, load in enumerate(loads))
    commands = [
        "set title 'CPU for each message, bare epoll = 1 (less is better)'", "set logscale x 2",
        f"set yrange [{-len(loads) + 0.4}:0.6]", f"set ytics ({labels}) scale 0",
        "set xtics nomirror (0.5, 0.7, 1, 1.4, 2, 3, 4, 6, 8)", "set xrange [0.5:8]", "set border 1",
        "set grid x y linecolor '#e4e4e4' linetype 1", "set key outside right top reverse Left invert",
        f"set arrow from 1,{-len(loads) + 0.4} to 1,0.6 nohead linecolor '#222222' linewidth 1.5"]
    plots = []
    # What is drawn last lies on top: ours.
    for place, name in enumerate(names):
        points = [f"{min(rows[load][name]['cpu_to_floor'], 8)} {-i}" for i, load in enumerate(loads)
                  if name in rows[load]]
        commands.append(data(f"d{place}", points))
    for place, name in reversed(list(enumerate(names))):
        colour, kind, size = STYLES[name]
        title = results["servers"][name]["title"]
        plots.append(f"$d{place} using 1:2 with points pointtype {kind} pointsize {size} "
                     f"linecolor '{colour}' title {quoted(title)}")
    gnuplot(path, 860, 80 + 36 * len(loads), [*commands, "plot " + ", \\\n".join(plots)])


def latency(results, path):
    loads = [pair for pair in LATENCY_LOADS if pair[0] in results["loads"]]
    if not loads:
        return
    names = [name for name in [figures.FLOOR, *STYLES] if any(
        name in figures.rows_of(results, load) for load, _ in loads)]
    labels = ", ".join(f"{quoted(results['servers'][name]['title'])} {-i}"
                       for i, name in enumerate(names))
    commands = [f"set multiplot layout 1,{len(loads)} title "
                "'Latency of 64 B in ms: p50 the point, p99 the bar, p99.9 the end (less is better)'",
                "set logscale x",
                "set xtics nomirror (" + ", ".join(TICKS) + ")", f"set yrange [{-len(names) + 0.4}:0.6]", "set border 1",
                "set grid x linecolor '#e4e4e4' linetype 1", "unset key",
                "set bmargin at screen 0.09", "set tmargin at screen 0.83"]
    left = 0.17
    width = (0.98 - left) / len(loads)
    for panel, (load, title) in enumerate(loads):
        rows = figures.rows_of(results, load)
        shown = [row for name, row in rows.items() if name in names]
        least, most = min(row["p50"] for row in shown), max(row["p999"] for row in shown)
        lines = []
        for i, name in enumerate(names):
            if name in rows:
                colour = STYLES.get(name, ("#222222",))[0] if name in figures.OURS else "#8a8a8a"
                row = rows[name]
                p50, p99, p999 = (row[key] / 1000 for key in ("p50", "p99", "p999"))
                lines.append(f"{p50} {-i} {p99} {p999} {int(colour[1:], 16)}")
        ticks = f"set ytics ({labels}) scale 0" if panel == 0 else "set ytics ('' 0) scale 0"
        commands += [data(f"p{panel}", lines), f"set title {quoted(title)}", ticks,
                     f"set xrange [{least / 1200}:{most / 850}]",
                     f"set lmargin at screen {left + panel * width:.3f}",
                     f"set rmargin at screen {left + (panel + 1) * width - 0.02:.3f}",
                     f"plot $p{panel} using 1:2:($4-$1):(0):5 with vectors nohead linewidth 2 "
                     "linecolor rgb variable, "
                     f"$p{panel} using 1:2:5 with points pointtype 7 pointsize 0.7 "
                     "linecolor rgb variable, "
                     f"$p{panel} using 3:($2-0.25):(0):(0.5):5 with vectors nohead linewidth 2 "
                     "linecolor rgb variable"]
    gnuplot(path, 860, 90 + 24 * len(names), [*commands, "unset multiplot"])


def draw(results, folder):
    os.makedirs(folder, exist_ok=True)
    if figures.ordered_loads(results):
        cpu(results, os.path.join(folder, "cpu.svg"))
        latency(results, os.path.join(folder, "latency.svg"))
