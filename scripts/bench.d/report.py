"""From a result to words: the targets, the table, the plot. Measures nothing."""

from pathlib import Path

GIB = 1 << 30
COLOURS = {
    "HTTP alone": "#9aa0a6",
    "keymount": "#1a73e8",
    "rclone, cache off": "#f9ab00",
    "rclone, full cache": "#e8710a",
    "rclone, 16 streams": "#b31412",
    "JuiceFS": "#12b5cb",
    "local disk": "#188038",
}


class Rows:
    def __init__(self, rows):
        self.rows = {(row["work"], row["tool"], row["rtt"]): row for row in rows}

    def get(self, work, tool, rtt, key):
        return self.rows.get((work, tool, rtt), {}).get(key)

    def best(self, work, rtt, key, pick, tools=("rclone, cache off", "rclone, full cache", "rclone, 16 streams")):
        values = [self.get(work, tool, rtt, key) for tool in tools]
        values = [value for value in values if value is not None]
        return pick(values) if values else None


def ratio(part, whole):
    return None if part is None or not whole else part / whole


def targets(result):
    """(what, wanted, measured as text, met or None)"""
    rows = Rows(result["rows"])
    found = []

    def add(what, wanted, value, met, text="{:.2f}"):
        found.append((what, wanted, "not measured" if value is None else text.format(value), None if value is None else met(value)))

    def at_least(what, value, bound, unit="×"):
        shown = f"{bound:.0%}" if unit == "%" else f"{bound:g} {unit}"
        add(what, f"≥ {shown}", value, lambda v: v >= bound, "{:.0%}" if unit == "%" else "{:.2f} " + unit)

    def at_most(what, value, bound, unit):
        add(what, f"≤ {bound:g} {unit}", value, lambda v: v <= bound, "{:.2f} " + unit)

    works = sorted({(row["work"], row["rtt"]) for row in result["rows"] if row["work"].startswith("cold sequential")})
    for work, rtt in works:
        mine = rows.get(work, "keymount", rtt, "rate")
        where = f"{work} at {rtt} ms"
        at_least(f"{where}: of HTTP alone", ratio(mine, rows.get(work, "HTTP alone", rtt, "rate")), 0.9, "%")
        at_least(f"{where}: of rclone's best", ratio(mine, rows.best(work, rtt, "rate", max)), 1.5)
        at_least(f"{where}: of rclone's full cache", ratio(mine, rows.get(work, "rclone, full cache", rtt, "rate")), 2)
        memory = rows.get(work, "keymount", rtt, "memory_more")
        at_most(f"{where}: memory for one reader", None if memory is None else memory / (1 << 20), 64, "MiB")
        at_most(f"{where}: CPU for a GiB", rows.get(work, "keymount", rtt, "cpu_per_gib"), 1.3, "s")
        for key, what in (("cpu_per_gib", "CPU of rclone's least"), ("memory", "memory of rclone's least")):
            least = rows.best(work, rtt, key, min)
            value = ratio(rows.get(work, "keymount", rtt, key), least)
            add(f"{where}: {what}", "< 100%", value, lambda v: v < 1, "{:.0%}")
    one, many = "cold random 4 KiB, 1 task", "cold random 4 KiB, 16 tasks"
    at_most(f"{one}: half of the reads", ratio(rows.get(one, "keymount", 20, "p50_ms"), 20), 1.25, "round trips")
    spread = ratio(rows.get(many, "keymount", 20, "per_second"), rows.get(one, "keymount", 20, "per_second"))
    at_least(f"{many}: reads a second, of 1 task's", spread, 14)
    fetched = rows.get(one, "keymount", 20, "content")
    at_most(f"{one}: fetched for each, without the heads of answers", None if fetched is None else fetched * 4, 64, "KiB")
    for access in ("sequential", "random 4 KiB"):
        for pages, what in (("dropped", "of the local disk"), ("kept", "of the local page cache")):
            work = f"warm {access}, pages {pages}"
            at_least(f"{work}: {what}", rows.get(work, "keymount", None, "of_local"), 0.9, "%")
    work = "warm sequential, pages dropped"
    ordinary = rows.get(work, "keymount, ordinary user", None, "of_local")
    at_least(f"{work}: of the local disk, as an ordinary user", ordinary, 0.6, "%")
    for walk in ("find", "ls -lR"):
        trips = ratio(rows.get(f"{walk}, cold", "keymount", 20, "seconds"), 0.02)
        at_most(f"{walk}, cold", trips, result["directories"] / 8 + 2, "round trips")
        at_most(f"{walk}, warm: requests", rows.get(f"{walk}, warm", "keymount", 20, "requests"), 0, "")
        at_most(f"{walk}, after a remount", rows.get(f"{walk}, after a remount", "keymount", 20, "seconds"), 1, "s")
    small = "1,000 files of 4 KiB"
    fastest = rows.best(small, 20, "per_second", max)
    at_least(f"{small}: of rclone's best", ratio(rows.get(small, "keymount", 20, "per_second"), fastest), 4)
    at_most("mount until the first ls", rows.get("mount until the first ls", "keymount", 20, "seconds"), 0.14, "s")
    return found


def number(value, scale=1.0):
    if value is None:
        return ""
    value /= scale
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(result):
    lines = [
        "| work | round trip | tool | seconds | MB/s | a second | p50 ms | requests | bytes per byte | CPU s/GiB | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        get = row.get
        tool = row["tool"] + (f" ({get('best_connections')} connections)" if get("best_connections") else "")
        rtt = "" if row["rtt"] is None else f"{row['rtt']} ms"
        cells = [
            row["work"], rtt, tool, number(get("seconds")), number(get("rate"), 1e6), number(get("per_second")),
            number(get("p50_ms")), number(get("requests")), number(get("fetched")) if get("fetched") else "",
            number(get("cpu_per_gib")), number(get("memory"), 1 << 20),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def costs(result):
    """Whether the cores of this machine could have read faster, each tool at the CPU that it takes."""
    rows = [row for row in result["rows"] if row.get("all_cpu_per_gib")]
    if not rows:
        return []
    cores, gib = result["machine"]["cores"], result["size_mib"] / 1024
    lines = [
        "## What the cores allow",
        "",
        "Server, link, tool and reader share the cores. “All CPU” is what they took together; no tool can be faster than the",
        "least time in which all cores do that, however it asks. “Of HTTP alone at most” is what a tool would reach that did",
        "the same for nothing, with no CPU of its own.",
        "",
        "| work | round trip | tool | all CPU s/GiB | its own | cores busy | least seconds | measured | of HTTP alone at most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by_name = Rows(rows)
    for row in rows:
        everything = row["all_cpu_per_gib"] * gib
        alone = by_name.get(row["work"], "HTTP alone", row["rtt"], "seconds")
        others = (row["all_cpu_per_gib"] - row.get("cpu_per_gib", 0)) * gib / cores
        most = min(1, alone / others) if alone and "cpu_per_gib" in row else None
        cells = [
            row["work"], f"{row['rtt']} ms", row["tool"], number(row["all_cpu_per_gib"]), number(row.get("cpu_per_gib")),
            number(everything / row["seconds"]), number(everything / cores), number(row["seconds"]),
            "" if most is None else f"{most:.0%}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    names = {"swapper": "nobody", "link": "the reader", "find": "the reader", "ls": "the reader", "apache2": "Apache"}
    for profile in result["profiles"]:
        shares = profile["shares"]
        by_process = {}
        for share, who, _ in shares:
            who = names.get(who, who)
            by_process[who] = by_process.get(who, 0) + share
        named = sorted(by_process.items(), key=lambda item: -item[1])
        # Where the kernel reads without asking keymount, the reader's part tells.
        most = next((who for who, share in named if who == "keymount" and share >= 5), "the reader")
        part = [(share, symbol) for share, who, symbol in shares if names.get(who, who) == most]
        total = sum(share for share, _ in part) or 1
        where = profile["tool"].removeprefix("keymount").replace(", ", ", as an ")
        where += "" if profile["rtt"] is None else f" at {profile['rtt']} ms"
        lines += ["", f"Profile of {profile['work']}{where}, all cores: "
                  + ", ".join(f"{who} {share:.0f} %" for who, share in named if share >= 1) + ".",
                  f"Most of the part of {most}: "
                  + ", ".join(f"`{symbol}` {share / total:.0%}" for share, symbol in part[:12]) + "."]  # fmt: skip
    return [*lines, ""]


def plot(result):
    """Cold sequential reads as bars, a group for each link."""
    rows = [row for row in result["rows"] if row["work"].startswith("cold sequential")]
    groups = list(dict.fromkeys((row["work"], row["rtt"]) for row in rows))
    if not groups:
        return ""
    bar, gap, height, left, top = 26, 34, 240, 60, 40
    width = left + sum(gap + bar * sum((row["work"], row["rtt"]) == group for row in rows) for group in groups) + 180
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height + top + 50}" font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="{left}" y="20" font-size="14">'
        "Cold sequential read, in percent of HTTP alone over the same link</text>",
    ]
    for percent in (0, 25, 50, 75, 100):
        y = top + height - height * percent / 110
        out.append(f'<line x1="{left}" x2="{width - 170}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dadce0"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>')
    x = left + gap / 2
    for group in groups:
        members = [row for row in rows if (row["work"], row["rtt"]) == group]
        ceiling = next((row["rate"] for row in members if row["tool"] == "HTTP alone"), max(row["rate"] for row in members))
        begin = x
        for row in members:
            tall = min(110, 100 * row["rate"] / ceiling) * height / 110
            colour = COLOURS.get(row["tool"], "#5f6368")
            out.append(
                f'<rect x="{x:.0f}" y="{top + height - tall:.1f}" width="{bar - 4}" height="{tall:.1f}" fill="{colour}">'
                f"<title>{row['tool']}: {row['rate'] / 1e6:.0f} MB/s</title></rect>"
            )
            out.append(
                f'<text x="{x + bar / 2 - 2:.0f}" y="{top + height - tall - 4:.1f}" text-anchor="middle" font-size="9">'
                f"{row['rate'] / 1e6:.0f}</text>"
            )
            x += bar
        slow = f", {result['slow_mbit']} Mbit/s" if group[0].endswith("link") else ""
        out.append(f'<text x="{(begin + x) / 2:.0f}" y="{top + height + 18}" text-anchor="middle">{group[1]} ms{slow}</text>')
        x += gap
    out.append(f'<text x="{left}" y="{top + height + 40}" fill="#5f6368">above each bar: MB/s</text>')
    for place, name in enumerate(dict.fromkeys(row["tool"] for row in rows)):
        y = top + 16 * place
        out.append(f'<rect x="{width - 150}" y="{y}" width="11" height="11" fill="{COLOURS.get(name, "#5f6368")}"/>')
        out.append(f'<text x="{width - 134}" y="{y + 10}">{name}</text>')
    return "\n".join(out) + "\n</svg>\n"


def page(result):
    machine = result["machine"]
    load = ", ".join(f"{value:.2f}" for value in result["load_before"])
    lines = [
        "# Benchmarks",
        "",
        "Written by `scripts/bench --write docs/benchmarks.md`; don't edit it by hand. `scripts/bench --help` says what can",
        "be measured and how long it takes. To measure your own link, run `keymount bench <remote>`.",
        "",
        "All tools read from one Apache with mod_dav on the same machine, through one proxy that delays each direction by half",
        "the round trip, also while a connection is set up, and counts requests and bytes, headers included. It doesn't limit",
        "bandwidth unless it says so, so a link here is faster than most: what takes CPU shows.",
        "“HTTP alone” is a client that throws bytes away, with the number of connections that was fastest. Every cold sample",
        "is taken from a mount of its own with an empty cache. “Pages dropped” means that neither the mounted file nor the",
        "tool's cache was in the page cache. Before each cold sequential sample and each with pages dropped enough memory for",
        "two copies was in use, for a virtual machine may pay ten times as much for new pages. Each warm sample is compared",
        "with one of the local disk that was taken just before it. Numbers are medians.",
        "",
        f"- {machine['processor']}, {machine['cores']} cores, {machine['memory'] / GIB:.0f} GiB, Linux {machine['kernel']}",
        f"- load average at the start: {load}",
        f"- {result['versions']}",
        f"- a file of {result['size_mib']} MiB, {result['runs']} runs of each work, {result['minutes']:.0f} minutes",
        "",
    ]
    if any(row["work"].endswith("slow link") for row in result["rows"]):
        lines += [f"“Slow link” is {result['slow_mbit']} Mbit/s.", ""]
    if any(row["tool"] == "JuiceFS" for row in result["rows"]):
        lines += [
            "JuiceFS reads copies in a volume of its own on the same server, and has all names in a database on this machine, so",
            "it asks the server for contents only.",
            "",
        ]
    if plot(result):
        lines += ["![Cold sequential reads](benchmarks.svg)", ""]
    lines += ["## Targets", "", "| target | wanted | measured | |", "|---|---|---|---|"]
    for what, wanted, measured, met in targets(result):
        verdict = {True: "met", False: "**missed**", None: ""}[met]
        lines.append(f"| {what} | {wanted.strip()} | {measured.strip()} | {verdict} |")
    lines += ["", *costs(result), "## All numbers", "", *table(result), ""]
    if result["missing"]:
        lines += ["Not measured:", ""]
        lines += [f"- {work}, {tool}{'' if rtt is None else f' at {rtt} ms'}: {why}" for work, tool, rtt, why in result["missing"]]
        lines.append("")
    return "\n".join(lines)


def write_report(result, path):
    print()
    for what, wanted, measured, met in targets(result):
        verdict = {True: "met", False: "MISSED", None: ""}[met]
        if met is not None:
            print(f"{verdict:7} {what}: {measured.strip()} ({wanted.strip()})")
    for work, tool, rtt, why in result["missing"]:
        print(f"not measured: {work}, {tool}{'' if rtt is None else f' at {rtt} ms'}: {why}")
    print(f"\nload average at the start: {', '.join(f'{value:.2f}' for value in result['load_before'])}")
    if path:
        path.write_text(page(result))
        drawn = plot(result)
        if drawn:
            Path(path).with_suffix(".svg").write_text(drawn)
        print(f"written: {path}")
