"""Measures keymount beside rclone, a plain HTTP client and the local disk, over one server and one delayed link.

Started by scripts/bench, which installs what this needs. What is fast enough to matter is in link.rs; this only starts,
waits, reads /proc and does sums. Everything that is started is in one `Bench`, which ends it by its process number,
unmounts and removes, however the run ends.
"""

import argparse
import collections
import contextlib
import functools
import http.client
import json
import os
import platform
import pwd
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import typing
from pathlib import Path

from report import write_report

MIB = 1 << 20
PAGE = 4096
TICKS = os.sysconf("SC_CLK_TCK")
DIRECTORIES, FILES_EACH, SMALL_FILES = 100, 100, 1000


class OutOfTime(Exception):
    """The run may take no longer."""


class Bench:
    """What runs, and for how long it may."""

    def __init__(self, options):
        self.options = options
        self.ends = time.monotonic() + options.minutes * 60
        self.scratch = Path(tempfile.mkdtemp(prefix="keymount-bench.", dir=options.scratch))
        self.scratch.chmod(0o755)
        self.started = []
        self.mounted = []
        self.numbers = 0
        self.volume = None

    def left(self):
        left = self.ends - time.monotonic()
        if left <= 0:
            raise OutOfTime
        return left

    def start(self, command, **more):
        log = (self.scratch / "log").open("ab")
        more = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **more}
        process = subprocess.Popen([str(word) for word in command], start_new_session=True, **more)
        self.started.append(process)
        return process

    def run(self, command, user=None, ok=(0,), **more):
        """What a command prints; it ends with the run."""
        command = as_user(user, command)
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=self.left(), **more)
        except subprocess.TimeoutExpired as error:
            raise OutOfTime from error
        if done.returncode not in ok:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()

    def link(self, *words, user=None):
        """The numbers that the compiled helper prints."""
        printed = self.run([self.options.link, *map(str, words)], user)
        return [float(word) for word in printed.split()]

    def wait_until(self, ready, what):
        while not ready():
            if self.left() < 0.1:
                raise OutOfTime(what)
            time.sleep(0.002)

    def new_folder(self, name, user=None):
        self.numbers += 1
        folder = self.scratch / f"{self.numbers}-{name}"
        folder.mkdir()
        if user:
            entry = pwd.getpwnam(user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        return folder

    def end(self, process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process in self.started:
            self.started.remove(process)

    def close(self):
        for directory in reversed(self.mounted):
            unmount(directory)
        for process in reversed(self.started[:]):
            self.end(process)
        shutil.rmtree(self.scratch, ignore_errors=True)


def available():
    """The memory that could be had now, in bytes."""
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def busy():
    """The seconds that all cores together have worked since they started."""
    with open("/proc/stat") as lines:
        user, nice, system, _, _, interrupts, soft = map(int, lines.readline().split()[1:8])
    return (user + nice + system + interrupts + soft) / TICKS


def as_user(user, command):
    command = [str(word) for word in command]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", *command] if user else command


def unmount(directory):
    if os.path.ismount(directory):
        for command in (["fusermount3", "-u", directory], ["fusermount3", "-uz", directory]):
            if subprocess.run([str(word) for word in command], capture_output=True).returncode == 0:
                return


class Link:
    """The delaying proxy before the server."""

    def __init__(self, bench, upstream):
        self.process = bench.start(
            [bench.options.link, "proxy", upstream], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = f"127.0.0.1:{self.process.stdout.readline().strip()}"

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def take(self):
        """Connections, requests, bytes up and down since the last time."""
        self.tell("take")
        return [int(word) for word in self.process.stdout.readline().split()]


class Tool:
    """One way to mount the server. A fresh one has an empty cache unless it is told to keep it."""

    def __init__(self, bench, link, name):
        self.bench, self.link, self.name = bench, link, name
        ordinary = bench.options.user
        self.user = ordinary if name == "keymount, ordinary user" else None
        self.directory = self.state = self.process = None

    def command(self):
        url = f"http://{self.link.address}/"
        if self.name == "JuiceFS":
            return [
                self.bench.options.juicefs, "mount", "--no-usage-report", "--read-only", "--cache-dir",
                self.state / "cache", self.bench.volume, self.directory,
            ]  # fmt: skip
        if self.name.startswith("keymount"):
            return [
                self.bench.options.keymount, "mount", "--foreground", "--read-only", "--cache-size", "20G",
                f"webdav://{self.link.address}", self.directory,
            ]  # fmt: skip
        command = [
            self.bench.options.rclone, "mount", ":webdav:", self.directory, "--webdav-url", url, "--webdav-vendor",
            "other", "--config", "/dev/null", "--read-only", "--cache-dir", self.state / "cache",
        ]  # fmt: skip
        mode = {"rclone, cache off": [], "rclone, full cache": ["--vfs-cache-mode", "full"]}
        streams = ["--vfs-cache-mode", "full", "--vfs-read-chunk-streams", "16", "--vfs-read-chunk-size", "4M"]
        return command + mode.get(self.name, streams)

    @property
    def keeps(self):
        return self.name != "rclone, cache off"

    def mount(self, keep=False):
        """Seconds until the first listing of the top was there."""
        if not keep or self.state is None:
            self.state = self.bench.new_folder("state", self.user)
        self.directory = self.bench.new_folder("mount", self.user)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RCLONE_", "KEYMOUNT_"))}
        environment["HOME"] = str(self.state)
        for part in ("CONFIG", "STATE", "CACHE", "RUNTIME"):
            folder = self.state / part.lower()
            if not folder.exists():
                folder.mkdir(mode=0o700)
                if self.user:
                    entry = pwd.getpwnam(self.user)
                    os.chown(folder, entry.pw_uid, entry.pw_gid)
            environment[f"XDG_{part}_{'DIR' if part == 'RUNTIME' else 'HOME'}"] = str(folder)
        environment["XDG_RUNTIME_DIR"] = str(self.state / "runtime")
        begin = time.monotonic()
        self.process = self.bench.start(as_user(self.user, self.command()), env=environment)
        self.bench.mounted.append(self.directory)

        def is_mounted():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {(self.bench.scratch / 'log').read_text()[-2000:]}")
            return any(f" {self.directory} " in line for line in open("/proc/self/mountinfo"))

        self.bench.wait_until(is_mounted, f"{self.name} is mounted")
        self.bench.run(["ls", self.directory], self.user)
        return time.monotonic() - begin

    def unmount(self):
        unmount(self.directory)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.bench.end(self.process)
        self.bench.mounted.remove(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    def forget(self):
        """Nothing is left of it, so that what it cached takes no memory from the next."""
        shutil.rmtree(self.state, ignore_errors=True)
        self.state = None

    def file(self, name):
        return self.directory / name

    def drop_pages(self):
        """Neither the mount's pages nor those of the tool's own cache are in memory afterwards."""
        self.bench.run([self.bench.options.link, "drop", self.file("big.bin")], self.user)
        for folder in (self.state / "cache", ):
            if folder.exists():
                self.bench.run([self.bench.options.link, "drop", folder])

    def processes(self):
        """Its own and those that it started: all of the session that began with it; with the fields of their `stat`."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                    if int(fields[3]) == self.process.pid:
                        yield folder, fields

    def cpu(self):
        return sum(int(fields[11]) + int(fields[12]) for _, fields in self.processes()) / TICKS

    def memory(self, what="VmRSS"):
        total = 0
        for folder, _ in self.processes():
            with contextlib.suppress(OSError):
                lines = (folder / "status").read_text().splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(what + ":"))
        return total

    def forget_peak(self):
        for folder, _ in self.processes():
            with contextlib.suppress(OSError):
                (folder / "clear_refs").write_text("5")


@contextlib.contextmanager
def mounted(tool, keep=False, again=False):
    """`keep` takes what an earlier mount left, and `again` leaves it for another one."""
    tool.mount(keep)
    try:
        yield tool
    finally:
        tool.unmount()
        if not again:
            tool.forget()


class WarmFile(typing.NamedTuple):
    """A file of which everything is on this machine."""

    name: str
    path: Path
    user: str | None
    drop_pages: typing.Callable[[], None]
    processes: typing.Callable[[], typing.Iterable]


class Profile:
    """What all cores do while this is entered, looked at some thousand times a second."""

    def __init__(self, works, work, rtt, tool):
        self.works, self.bench, self.row = works, works.bench, {"work": work, "rtt": rtt, "tool": tool.name}
        self.data = self.bench.new_folder("profile") / "data"
        self.own = {int(folder.name): "keymount" for folder, _ in tool.processes()}
        self.own[works.link.process.pid] = "the link"

    def __enter__(self):
        command = [self.bench.options.perf, "record", "-a", "-k", "CLOCK_MONOTONIC", "-e", "cpu-clock", "-F", "3989", "-o", self.data]
        self.recorder = self.bench.start(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.bench.wait_until(lambda: self.data.exists() and self.data.stat().st_size, "perf records")
        self.began = time.monotonic()

    def __exit__(self, *_):
        ended = time.monotonic()
        self.recorder.send_signal(signal.SIGINT)
        self.recorder.wait(20)
        printed = self.bench.run([self.bench.options.perf, "script", "-i", self.data, "-F", "comm,pid,time,ip,sym"])
        counts = collections.Counter()
        for line in printed.splitlines():
            # "command  process  seconds: address symbol+offset"; a command may have spaces.
            sample = re.match(r"\s*(.*?)\s+(\d+)\s+(\d+\.\d+):\s+[0-9a-f]+ (.*)", line)
            if sample and self.began <= float(sample[3]) <= ended:
                counts[self.own.get(int(sample[2]), sample[1]), sample[4].strip()] += 1
        if not counts:
            raise RuntimeError("perf saw nothing")
        self.row["shares"] = [(100 * count / counts.total(), *what) for what, count in counts.most_common()]
        self.works.profiles.append(self.row)


class Works:
    """Each work gives rows {work, rtt, tool, ...numbers}; several runs of one are reduced to medians by `median`."""

    def __init__(self, bench, link, served):
        self.bench, self.link, self.served = bench, link, served
        self.size = bench.options.size * MIB
        self.runs = bench.options.runs
        self.rows = []
        self.missing = []
        self.profiles = []

    def add(self, work, tool, rtt, samples):
        row = {"work": work, "tool": tool, "rtt": rtt, "runs": len(samples)}
        for key in samples[0]:
            row[key] = statistics.median(sample[key] for sample in samples)
        self.rows.append(row)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, float))
        print(f"{work:28} {tool:24} {'' if rtt is None else f'{rtt} ms':7} {shown}", flush=True)
        return row

    def link_for(self, work, rtt):
        self.link.tell(f"rtt {rtt or 0}")
        self.link.tell(f"rate {self.bench.options.rate * 125_000 if rtt and work.endswith('link') else 0}")

    def measure(self, work, name, rtt, once, runs=None):
        """Takes the samples of one row; what cannot be measured is said and not made up."""
        try:
            self.link_for(work, rtt)
            return self.add(work, name, rtt, [once(number) for number in range(runs or self.runs)])
        except OutOfTime:
            self.missing.append((work, name, rtt, "there was no time left"))
        except (RuntimeError, OSError) as error:
            self.missing.append((work, name, rtt, str(error).splitlines()[-1]))
        print(f"{work:28} {name:24} {self.missing[-1][-1]}", flush=True)
        return None

    def tools(self, *more):
        return [Tool(self.bench, self.link, name) for name in (*self.bench.options.tools, *more)]

    def ordinary(self):
        return ["keymount, ordinary user"] if self.bench.options.user else []

    def have_memory(self):
        """Where free memory is given back to a host, new pages cost ten times as much as used ones, and who caches would pay
        for it. So there are enough of them for two copies."""
        self.bench.link("touch", min(2 * self.size // MIB + 512, available() // MIB // 2))

    def head(self):
        """How long the head of an answer to a range is, as long as it gets: its numbers are the largest."""
        self.link.take()
        host, port = self.link.address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=self.bench.left())
        connection.request("GET", "/big.bin", headers={"Range": f"bytes={self.size - 16 * PAGE}-{self.size - 1}"})
        content = len(connection.getresponse().read())
        connection.close()
        return self.link.take()[-1] - content

    def traffic(self, sample, read):
        connections, requests, up, down = self.link.take()
        sample.update(requests=float(requests), connections=float(connections), fetched=down / read if read else 0.0)
        return sample

    def profile(self, work, rtt, tool, once):
        """One more sample of keymount's, with a look at all cores while the file or the tree is read."""
        if not self.bench.options.perf or not tool.name.startswith("keymount"):
            return
        self.link_for(work, rtt)
        try:
            once(lambda: Profile(self, work, rtt, tool))
        except (OutOfTime, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            self.missing.append((f"{work}: a profile", tool.name, rtt, str(error) or "there was no time left"))

    # Cold.

    def ceiling(self, work, rtt):
        best = None
        for connections in (4, 8, 16, 32):
            part = min(4 * MIB, max(self.size // connections, 64 * 1024))

            def once(_, connections=connections, part=part):
                self.link.take()
                before = busy()
                (seconds,) = self.bench.link("raw", self.link.address, "/big.bin", self.size, connections, part)
                sample = {"seconds": seconds, "rate": self.size / seconds}
                sample["all_cpu_per_gib"] = (busy() - before) * (1 << 30) / self.size
                return self.traffic(sample, self.size)

            self.link_for(work, rtt)
            try:
                samples = [once(number) for number in range(self.runs)]
            except OutOfTime:
                break
            rate = statistics.median(sample["rate"] for sample in samples)
            if best is None or rate > best[0]:
                best = (rate, connections, samples)
        if best is None:
            self.missing.append((work, "HTTP alone", rtt, "there was no time left"))
        else:
            self.add(work, "HTTP alone", rtt, best[2])["best_connections"] = best[1]

    def cold_sequential(self, work, rtt):
        self.ceiling(work, rtt)
        for tool in self.tools():

            def once(_, tool=tool, watch=contextlib.nullcontext):
                with mounted(tool):
                    self.bench.run(["stat", tool.file("big.bin")], tool.user)
                    self.have_memory()
                    self.link.take()
                    tool.forget_peak()
                    before, cpu, all_cpu = tool.memory(), tool.cpu(), busy()
                    with watch():
                        seconds, read = self.bench.link("sequential", tool.file("big.bin"), user=tool.user)
                    all_cpu = busy() - all_cpu
                    if read != self.size:
                        raise RuntimeError(f"{read} bytes were read of {self.size}")
                    sample = {"seconds": seconds, "rate": read / seconds}
                    sample["cpu_per_gib"] = (tool.cpu() - cpu) * (1 << 30) / read
                    sample["all_cpu_per_gib"] = all_cpu * (1 << 30) / read
                    sample["memory"] = float(tool.memory("VmHWM"))
                    sample["memory_more"] = float(max(0, tool.memory("VmHWM") - before))
                    return self.traffic(sample, read)

            self.measure(work, tool.name, rtt, once)
            self.profile(work, rtt, tool, lambda watch: once(0, watch=watch))  # noqa: B023

    def cold_random(self, rtt, tasks):
        reads = 20 if self.bench.options.quick else 100
        for tool in self.tools():

            def once(number, tool=tool):
                head = self.head()
                with mounted(tool):
                    self.bench.run(["stat", tool.file("big.bin")], tool.user)
                    self.link.take()
                    seconds, p50, p99, count = self.bench.link(
                        "random", tool.file("big.bin"), tasks, reads, number, user=tool.user
                    )
                    sample = {"seconds": seconds, "p50_ms": p50, "p99_ms": p99, "per_second": count / seconds}
                    self.traffic(sample, count * PAGE)
                    sample["content"] = sample["fetched"] - sample["requests"] * head / (count * PAGE)
                    return sample

            self.measure(f"cold random 4 KiB, {tasks} task{'s' if tasks > 1 else ''}", tool.name, rtt, once)

    # Warm.

    def warm(self):
        local = self.bench.new_folder("local") / "big.bin"
        shutil.copyfile(self.served / "big.bin", local)
        disk = WarmFile("local disk", local, None, lambda: self.bench.run([self.bench.options.link, "drop", local]), list)
        self.warm_rows(disk, disk)
        for tool in self.tools(*self.ordinary()):
            if not tool.keeps:
                continue
            self.link.tell("rtt 0")
            try:
                with mounted(tool):
                    file = WarmFile(tool.name, tool.file("big.bin"), tool.user, tool.drop_pages, tool.processes)
                    # Twice: what one reading left out the other brings.
                    for _ in range(2):
                        self.bench.link("sequential", file.path, user=file.user)
                    self.warm_rows(file, disk)
            except (OutOfTime, RuntimeError, OSError) as error:
                self.missing.append(("warm reads", tool.name, None, str(error) or "there was no time left"))
        local.unlink()

    def warm_rows(self, file, disk):
        """Each sample is taken in turn with one of the local disk, which is not as fast at all times."""

        def sequential(file, _):
            seconds, read = self.bench.link("sequential", file.path, user=file.user)
            return {"seconds": seconds, "rate": read / seconds}

        def random(file, number, reads):
            seconds, p50, p99, count = self.bench.link("random", file.path, 1, reads, number, user=file.user)
            return {"seconds": seconds, "p50_ms": p50, "p99_ms": p99, "per_second": count / seconds}

        def in_turn(prepare, read, number):
            prepare(disk)
            there = read(disk, number)
            prepare(file)
            self.link.take()
            sample = read(file, number)
            sample["of_local"] = there["seconds"] / sample["seconds"]
            return self.traffic(sample, 0)

        def bring(file):
            self.bench.link("sequential", file.path, user=file.user)

        def watched(prepare, read, watch):
            prepare(file)
            with watch():
                read(file, self.runs)

        def drop(file):
            file.drop_pages()
            self.have_memory()

        # A look at 20,000 reads from the page cache would be over before it began.
        for pages, prepare, reads, looked_at in (("dropped", drop, 2000, 2000), ("kept", bring, 20_000, 1_000_000)):
            for access, read, long in (
                ("sequential", sequential, sequential),
                ("random 4 KiB", functools.partial(random, reads=reads), functools.partial(random, reads=looked_at)),
            ):
                work = f"warm {access}, pages {pages}"
                self.measure(work, file.name, None, functools.partial(in_turn, prepare, read))
                self.profile(work, None, file, functools.partial(watched, prepare, long))

    # Trees.

    def trees(self, rtt):
        for what, command in (("find", ["find"]), ("ls -lR", ["ls", "-lR"])):
            for tool in self.tools():
                samples = {"cold": [], "warm": [], "after a remount": [], "watched": []}

                def walk(state, tool=tool, command=command, samples=samples, watch=contextlib.nullcontext):
                    self.link.take()
                    with watch():
                        begin = time.monotonic()
                        printed = self.bench.run([*command, tool.file("tree")], tool.user)
                        seconds = time.monotonic() - begin
                    if printed.count("file-") != DIRECTORIES * FILES_EACH:
                        raise RuntimeError(f"{printed.count('file-')} files were listed")
                    samples[state].append(self.traffic({"seconds": seconds}, 0))

                def once(_, tool=tool, walk=walk):
                    with mounted(tool, again=True):
                        walk("cold")
                        walk("warm")
                    with mounted(tool, keep=True):
                        walk("after a remount")
                    return {}

                def watched(watch, tool=tool, walk=walk):
                    with mounted(tool):
                        walk("watched", watch=watch)

                self.link.tell(f"rtt {rtt}")
                self.link.tell("rate 0")
                try:
                    for number in range(self.runs if not self.bench.options.quick else 1):
                        once(number)
                except (OutOfTime, RuntimeError, OSError) as error:
                    self.missing.append((what, tool.name, rtt, str(error) or "there was no time left"))
                self.profile(f"{what}, cold", rtt, tool, watched)
                del samples["watched"]
                for state, taken in samples.items():
                    if taken:
                        self.add(f"{what}, {state}", tool.name, rtt, taken)

    def small_files(self, rtt):
        for tool in self.tools():

            def once(_, tool=tool):
                with mounted(tool):
                    self.link.take()
                    seconds, read, files = self.bench.link("files", tool.file("small"), user=tool.user)
                    if files != SMALL_FILES:
                        raise RuntimeError(f"{files} files were read")
                    return self.traffic({"seconds": seconds, "per_second": files / seconds}, read)

            self.measure("1,000 files of 4 KiB", tool.name, rtt, once, min(self.runs, 3))

    def first_listing(self, rtt):
        for tool in self.tools():

            def once(_, tool=tool):
                self.link.take()
                seconds = tool.mount()
                sample = self.traffic({"seconds": seconds}, 0)
                tool.unmount()
                tool.forget()
                return sample

            self.measure("mount until the first ls", tool.name, rtt, once)


def make_volume(bench, link, folder, wanted):
    """JuiceFS has no files but its own: a volume in the server, with copies of what is read. Its names are in a database on
    this machine, so that only contents come over the link."""
    place = bench.new_folder("volume")
    bench.volume = f"sqlite3://{place}/names.db"
    juicefs = [bench.options.juicefs]
    # It makes its own folder, but none above it.
    (folder / "juicefs").mkdir()
    bench.run(["chown", f"--reference={folder}", folder / "juicefs"])
    address = f"http://{link.address}/juicefs"
    environment = {**os.environ, "HOME": str(place)}
    bench.run(
        [*juicefs, "format", "--no-agent", "--storage", "webdav", "--bucket", address, "--access-key", "any",
         "--secret-key", "any", bench.volume, "bench"], env=environment,
    )  # fmt: skip
    writer = Tool(bench, link, "JuiceFS")
    reading = writer.command
    writer.command = lambda: [word for word in reading() if word != "--read-only"]
    with mounted(writer):
        for name in ("big.bin", *(name for name in ("tree", "small") if wanted(name))):
            bench.run(["cp", "-r", folder / name, writer.directory])


def make_content(folder, size):
    """Bytes that neither compress nor repeat within a block, and names."""
    piece = os.urandom(16 * MIB)
    with (folder / "big.bin").open("wb") as file:
        for number in range(size // 16):
            file.write(number.to_bytes(8, "little") + piece[8:])
        file.write(piece[: size % 16 * MIB])
    for directory in range(DIRECTORIES):
        (folder / "tree" / f"dir-{directory:03}").mkdir(parents=True)
        for number in range(FILES_EACH):
            (folder / "tree" / f"dir-{directory:03}" / f"file-{number:03}").write_bytes(piece[:10])
    (folder / "small").mkdir()
    for number in range(SMALL_FILES):
        (folder / "small" / f"{number:04}").write_bytes(piece[number : number + 4096])


APACHE = """
ServerName localhost
ServerRoot {scratch}
PidFile {scratch}/apache.pid
ErrorLog {scratch}/apache.log
DefaultRuntimeDir {scratch}
{user}
{modules}
# One process: what it does is on the same two cores as what it is measured with.
StartServers 1
ServerLimit 1
ThreadLimit 192
ThreadsPerChild 192
MaxRequestWorkers 192
MinSpareThreads 1
MaxSpareThreads 192
Listen 127.0.0.1:{port}
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
Timeout 600
EnableSendfile On
DocumentRoot {root}
DavLockDB {scratch}/locks/db
<Directory {root}>
    Require all granted
    Dav On
    LimitXMLRequestBody 0
</Directory>
"""
APACHE_PROGRAM, APACHE_MODULES = "/usr/sbin/apache2", Path("/usr/lib/apache2/modules")
# Who serves where root must not: Apache doesn't serve as root.
APACHE_USER = "www-data"


def serve(bench, folder):
    """Apache's mod_dav; gives its address."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ["mpm_event", "authz_core", "dav", "dav_fs"]
    modules = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in names)
    (bench.scratch / "locks").mkdir()
    user = ""
    if os.getuid() == 0:
        user = f"User {APACHE_USER}\nGroup {APACHE_USER}"
        for place in (bench.scratch / "locks", folder):
            bench.run(["chown", "-R", f"{APACHE_USER}:{APACHE_USER}", place])
    settings = bench.scratch / "apache.conf"
    settings.write_text(APACHE.format(modules=modules, user=user, scratch=bench.scratch, root=folder, port=port))
    process = bench.start([APACHE_PROGRAM, "-D", "FOREGROUND", "-f", settings])

    def answers():
        if process.poll() is not None:
            raise RuntimeError(f"Apache ended: {(bench.scratch / 'log').read_text()[-1000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    bench.wait_until(answers, "Apache answers")
    return f"127.0.0.1:{port}"


def measure(bench):
    options = bench.options
    served = bench.new_folder("served")
    make_content(served, options.size)
    link = Link(bench, serve(bench, served))
    works = Works(bench, link, served)
    wanted = lambda work: not options.only or any(only in work for only in options.only)  # noqa: E731
    if "JuiceFS" in options.tools:
        try:
            make_volume(bench, link, served, wanted)
        except (OutOfTime, RuntimeError, OSError) as error:
            works.missing.append(("all", "JuiceFS", None, str(error).splitlines()[-1] if str(error) else "no time left"))
            options.tools.remove("JuiceFS")
    plan = [("cold sequential", lambda rtt=rtt: works.cold_sequential("cold sequential", rtt)) for rtt in options.rtt]
    if options.rate:
        plan.append(("cold sequential", lambda: works.cold_sequential("cold sequential, slow link", 20)))
    plan += [("cold random", lambda tasks=tasks: works.cold_random(20, tasks)) for tasks in (1, 16)]
    plan += [
        ("warm", works.warm),
        ("tree", lambda: works.trees(20)),
        ("small", lambda: works.small_files(20)),
        ("mount", lambda: works.first_listing(20)),
    ]
    for name, work in plan:
        if not wanted(name):
            continue
        try:
            bench.left()
        except OutOfTime:
            works.missing.append((name, "all", None, "there was no time left"))
            continue
        work()
    return works


def machine():
    model = "unknown"
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {"processor": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}  # fmt: skip


def parse():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--rtt", default="0,20,100")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--tools", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--write", default="")
    parser.add_argument("--json", default="")
    for name in ("keymount", "rclone", "juicefs", "link", "user", "scratch", "versions"):
        parser.add_argument(f"--{name}", default="")
    options = parser.parse_args()
    options.size = options.size or (64 if options.quick else 1024)
    options.runs = options.runs or (1 if options.quick else 5)
    options.minutes = options.minutes or (8 if options.quick else 60)
    options.perf = shutil.which("perf") if os.getuid() == 0 else None
    options.rtt = [int(rtt) for rtt in options.rtt.split(",")]
    known = ["keymount", "rclone, cache off", "rclone, full cache", "rclone, 16 streams"]
    known += ["JuiceFS"] if options.juicefs else []
    options.tools = [tool for tool in known if not options.tools or any(part in tool for part in options.tools.split(","))]
    if options.user and not any(tool == "keymount" for tool in options.tools):
        options.user = ""
    return options


def main():
    options = parse()

    def stop(number, _):
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, stop)
    load = os.getloadavg()
    bench = Bench(options)
    try:
        begin = time.monotonic()
        works = measure(bench)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        bench.close()
    result = {
        "machine": machine(),
        "versions": options.versions,
        "load_before": load,
        "minutes": (time.monotonic() - begin) / 60,
        "size_mib": options.size,
        "runs": options.runs,
        "slow_mbit": options.rate,
        "directories": DIRECTORIES,
        "rows": works.rows,
        "missing": works.missing,
        "profiles": works.profiles,
    }
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    write_report(result, Path(options.write) if options.write else None)
    return 0


sys.exit(main())
