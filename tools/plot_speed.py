#!/usr/bin/env python3
"""Draws docs/speed.svg from bench/results/compare_llama.json: milliseconds of a pass by its number of rows.

    tools/plot_speed.py [--model default] [--threads 2]
"""
import argparse
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 380, 64, 150, 56, 52
COLORS = {"llama": "#b0562e", "dspark": "#1f6f8b"}
NAMES = {"llama": "llama.cpp", "dspark": "dspark"}


def draw(ms, model, threads):
    rows = [r for r in sorted(map(int, ms["dspark"])) if r <= 16]
    top = max(ms["llama"][str(r)] for r in rows) * 1.08
    step = 10 if top > 25 else 5
    x = {r: LEFT + i * (WIDTH - LEFT - RIGHT) / (len(rows) - 1) for i, r in enumerate(rows)}

    def y(value):
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
           'font-size="14" fill="#333">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
           f'<text x="{LEFT}" y="26" font-size="17" font-weight="bold">Milliseconds per pass: verifying 4 rows costs '
           f'{ms["dspark"]["4"] / ms["dspark"]["1"]:.2f} single ones</text>',
           f'<text x="{LEFT}" y="45" fill="#777">{model}, {threads} threads; logits of every row</text>']
    value = 0
    while value <= top:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e4e4e4"/>'
                   f'<text x="{LEFT - 8}" y="{y(value) + 5:.1f}" text-anchor="end" fill="#777">{value}</text>')
        value += step
    for r in rows:
        out.append(f'<text x="{x[r]:.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{r}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle" fill="#777">rows of one '
               'pass</text>')
    for side in ("llama", "dspark"):
        values = [ms[side][str(r)] for r in rows]
        points = " ".join(f"{x[r]:.1f},{y(v):.1f}" for r, v in zip(rows, values))
        out.append(f'<polyline points="{points}" fill="none" stroke="{COLORS[side]}" stroke-width="3"/>')
        for r, v in zip(rows, values):
            out.append(f'<circle cx="{x[r]:.1f}" cy="{y(v):.1f}" r="4" fill="{COLORS[side]}"/>'
                       f'<text x="{x[r]:.1f}" y="{y(v) - 9:.1f}" text-anchor="middle" font-size="12" '
                       f'fill="{COLORS[side]}">{v:.1f}</text>')
        out.append(f'<text x="{WIDTH - RIGHT + 14}" y="{y(values[-1]) + 5:.1f}" fill="{COLORS[side]}" '
                   f'font-weight="bold">{NAMES[side]}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    report = json.loads((ROOT / "bench" / "results" / "compare_llama.json").read_text())
    entry = next(e for e in report["entries"] if e["model"] == options.model and e["threads"] == options.threads)
    title = "SmolLM2-135M Q4_1" if options.model == "default" else options.model
    (ROOT / "docs" / "speed.svg").write_text(draw(entry["ms"], f"{title}, {entry['machine']['cpu']}", options.threads))


if __name__ == "__main__":
    main()
