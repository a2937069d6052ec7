"""Figures: a grid of panels with lines, and the lines' names below (gnuplot, SVG)."""
import math
import re
import subprocess

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#000000", "#ee7733", "#009988",
           "#882255", "#ddaa33")
POINTS = (5, 7, 9, 11, 13, 4, 6, 8)
WIDTH, HEIGHT, TITLE, NAMES = 300, 230, 34, 22  # pixels of a panel, of the title and of a line of names
CLIPPED = ("rtn",)  # far from all others where there are outliers: may run out of the picture


class Panel:
    """lines: {name: [(x, y), ...]}; points without a y are left out. y is logarithmic."""

    def __init__(self, title, xlabel, ylabel, lines, log_x=False):
        self.title, self.xlabel, self.ylabel, self.log_x = title, xlabel, ylabel, log_x
        self.lines = {name: [p for p in points if p[1] is not None and p[1] > 0] for name, points in lines.items()}

    def axis(self):
        """gnuplot's range and marks of y: those of the lines that are not clipped, with some room."""
        values = [y for name, points in self.lines.items() if name not in CLIPPED for _, y in points]
        if not values:
            return "set yrange [*:*]\nset ytics auto\n"
        low, high = min(values) / 1.5, max(values) * 1.5
        return f"set yrange [{low:.3g}:{high:.3g}]\nset ytics ({', '.join(marks(low, high))})\n"


def marks(low, high):
    """Powers of ten; between them 2 and 5 where there would be few, and every other one where there would be many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 3 else (1,)
    inside = [step * 10.0 ** decade for decade in decades for step in steps if low <= step * 10.0 ** decade <= high]
    return [f'"{mark:g}" {mark:.6g}' for mark in inside[::1 if len(inside) <= 8 else 2]]


def quoted(words):
    return '"' + words.replace('"', "'").replace("_", r"\\_") + '"'


def style(names, name):
    number = names.index(name)
    return f'lw 1.6 pt {POINTS[number % len(POINTS)]} ps 0.5 lc rgb "{COLOURS[number % len(COLOURS)]}"'


def panel_script(number, panel, names):
    blocks, plots = [], []
    for index, (name, points) in enumerate(panel.lines.items()):
        if points:
            block = f"$p{number}_{index}"
            blocks.append(f"{block} << EOD\n" + "\n".join(f"{x:g} {y:.6g}" for x, y in points) + "\nEOD")
            plots.append(f"{block} with linespoints {style(names, name)} notitle")
    log_x = "set logscale x" if panel.log_x else "unset logscale x"
    labels = f"set title {quoted(panel.title)}\nset xlabel {quoted(panel.xlabel)}\nset ylabel {quoted(panel.ylabel)}\n"
    drawn = "plot " + ", \\\n     ".join(plots) if plots else "set xrange [0:1]\nset yrange [0.1:1]\nplot NaN notitle"
    return "\n".join(blocks) + f"\nset xrange [*:*]\n{panel.axis()}{log_x}\n{labels}{drawn}\n"


def names_script(names):
    plots = ", \\\n     ".join(f"NaN with linespoints {style(names, name)} title {quoted(name)}" for name in names)
    return ("unset logscale\nunset title\nunset xlabel\nunset ylabel\nunset border\nunset tics\nunset grid\n"
            f"set margins 0,0,0,0\nset key center center horizontal maxrows {-(-len(names) // 6)}\n"
            f"set xrange [0:1]\nset yrange [0:1]\nplot {plots}\n")


def place(left, top, width, height, total_width, total_height):
    """gnuplot's origin and size of a part of the picture, given in pixels from the upper left corner."""
    return (f"set origin {left / total_width:.5f},{1 - (top + height) / total_height:.5f}\n"
            f"set size {width / total_width:.5f},{height / total_height:.5f}\n")


def draw(path, title, panels, columns):
    """-> whether there was anything to draw."""
    names = list(dict.fromkeys(name for panel in panels for name, points in panel.lines.items() if points))
    if not names:
        return False
    columns = min(columns, len(panels))
    width, lines = WIDTH * max(columns, 2), -(-len(panels) // columns)
    legend = NAMES * -(-len(names) // 6) + 8
    height = TITLE + HEIGHT * lines + legend
    script = f"""set terminal svg size {width},{height} font "sans-serif,11" background "white"
set grid lw 0.5
unset mytics
unset key
set logscale y
set multiplot title {quoted(title)}
"""
    for number, panel in enumerate(panels):
        left, top = number % columns * WIDTH, TITLE + number // columns * HEIGHT
        script += place(left, top, WIDTH, HEIGHT, width, height) + panel_script(number, panel, names)
    script += place(0, height - legend, width, legend, width, height) + names_script(names) + "unset multiplot\n"
    done = subprocess.run(["gnuplot"], input=script, text=True, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    with open(path, "w", encoding="utf-8") as file:
        file.write(without_empty_groups(done.stdout))
    return True


def without_empty_groups(picture):
    """gnuplot writes many groups with nothing in them: half of the file."""
    return re.sub(r"(?:<g [^>]*>\s*</g>\s*)+", "", picture)
