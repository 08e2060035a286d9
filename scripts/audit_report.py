"""Looks at reports with axe-core, in a headless Chromium: light and dark, wide and as on a telephone.

    npm install axe-core
    python scripts/audit_report.py --axe node_modules/axe-core/axe.min.js [--pictures DIR] workspace/report.html ...

Each page is audited as it opens, with an image and one of its pairs selected, and with the pair enlarged. A line for
each rule that is broken, and for what the console says or the page asks of elsewhere; status 1 if one of them is
serious. `--pictures` keeps what was seen.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"wide": (1400, 1000), "telephone": (390, 844)}
SERIOUS = ("serious", "critical")
SELECT = """(() => {
  const image = PARTNERS.size ? [...PARTNERS.keys()].find((one) => PARTNERS.get(one).length) : 0;
  if (image === undefined) return false;
  select(image, (PARTNERS.get(image) || [])[0]);
  return true;
})()"""
ENLARGE = """(() => {
  const button = [...document.querySelectorAll('#detail button')].find((one) => one.textContent === 'Enlarge');
  button?.click();
  return Boolean(button);
})()"""


def broken_rules(page: Any, where: str) -> list[tuple[str, str]]:
    """Impact and a line for each rule of axe-core that the page breaks as it is now."""
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        (
            str(rule["impact"]),
            f"{where}: {rule['impact']}: {rule['id']}: {rule['help']}, {len(rule['nodes'])} times, first "
            f"{rule['nodes'][0]['html'][:120]}",
        )
        for rule in result["violations"]
    ]


def audit(page: Any, report: Path, axe: str, pictures: Path | None) -> list[tuple[str, str]]:
    """Of one report, all that was found: impact and line."""
    found = []
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            started = time.monotonic()
            page.open(report, width=width, height=height, dark=scheme == "dark")
            opened = time.monotonic() - started
            page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
            # figures are drawn as they come in sight
            page.evaluate(
                "(async () => { for (const one of document.querySelectorAll('section')) { one.scrollIntoView();"
                " await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))); }"
                " scrollTo(0, 0); })()"
            )
            page.evaluate(f"{axe}\nvoid 0")
            where = f"{report.parent.name}, {size}, {scheme}"
            states = {"opened": "true", "selected": SELECT, "enlarged": ENLARGE}
            for state, script in states.items():
                if not page.evaluate(script):
                    continue
                time.sleep(0.5)  # for what moves
                found += broken_rules(page, f"{where}, {state}")
                if pictures:
                    page.picture(pictures / f"{report.parent.name}-{size}-{scheme}-{state}.png")
            print(f"{where}: opened in {opened:.2f} s, {report.stat().st_size / 1e6:.1f} MB")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", metavar="report.html")
    parser.add_argument("--axe", type=Path, required=True, metavar="axe.min.js")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import browser, find_browser

    program = find_browser()
    if program is None:
        parser.error("no Chromium is installed")
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    axe = options.axe.read_text(encoding="utf-8")
    with browser(program) as page:
        found = [one for report in options.reports for one in audit(page, report, axe, options.pictures)]
        found += [("serious", f"console: {error}") for error in page.errors]
        outside = {url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))}
        found += [("serious", f"asked for {url}") for url in sorted(outside)]
    for _, line in found:
        print(line)
    serious = sum(impact in SERIOUS for impact, _ in found)
    print(f"{len(found)} findings, {serious} of them serious")
    return int(serious > 0)


if __name__ == "__main__":
    sys.exit(main())
