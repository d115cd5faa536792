#!/usr/bin/env python3
"""Takes the pictures in docs/images from a real demo. screenshots.py BINARY DIRECTORY [ROUND]

Runs `martlet demo`, photographs the dashboard while round ROUND is open, in both themes, both languages and at the width of a
phone, and draws the curve when the demo is over.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

from browser import Browser


def get(address, token, path):
    request = urllib.request.Request(address + path, headers={"Authorization": "Bearer " + token})
    return json.load(urllib.request.urlopen(request))


def main():
    binary, directory = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    wanted = int(sys.argv[3]) if len(sys.argv) > 3 else 26
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="martlet-pictures-") as data, Browser() as browser:
        demo = subprocess.Popen([binary, "demo", "--keep", "--data-dir", data], stdout=subprocess.DEVNULL)
        while not os.path.exists(data + "/server/address") or not os.path.exists(data + "/server/admin-token"):
            assert demo.poll() is None, "the demo ended"
            time.sleep(0.2)
        address = open(data + "/server/address").read().strip()
        token = open(data + "/server/admin-token").read().strip()
        pages = []
        for name, language, theme, size in [
            ("dashboard", "en", "light", (1360, 850)), ("dashboard-dark", "zh-CN", "dark", (1360, 850)),
            ("dashboard-phone", "en", "dark", (390, 844)), ("dashboard-phone-zh", "zh-CN", "light", (390, 844)),
        ]:
            page = browser.page(language)
            page.theme(theme)
            page.screen(*size, mobile=size[0] < 600)
            page.open(address)
            page.until("document.activeElement?.id === 'token'")
            page.type(token)
            page.key("Enter")
            pages.append((name, page))
        run = None
        while True:
            runs = get(address, token, "/v1/runs")["items"]
            if runs and runs[0]["committed_rounds"] >= wanted:
                run = runs[0]["id"]
                break
            assert demo.poll() is None, "the demo ended"
            time.sleep(0.5)
        time.sleep(1.5)
        for name, page in pages:
            # A tab that was in the background has its transitions still before it.
            page.send("Page.bringToFront")
            time.sleep(1)
            page.until("document.querySelector('[data-view=run]')")
            page.screenshot(f"{directory}/{name}.png")
            assert not page.errors, page.errors
        assert demo.wait(900) == 0
        environment = dict(os.environ, MARTLET_URL=address, MARTLET_TOKEN=token)
        subprocess.run([binary, "run", "plot", run, "-o", directory + "/curve.svg", "--title", "The demo: 6,000 clients, central privacy, ε = 7.87 at δ = 10⁻⁵"], env=environment, check=True)
        os.kill(int(open(data + "/server/pid").read()), 15)
        time.sleep(1)
    for name in sorted(os.listdir(directory)):
        print(name, os.path.getsize(os.path.join(directory, name)) // 1000, "kB")


if __name__ == "__main__":
    main()
