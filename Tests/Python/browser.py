"""Drives a headless Chromium over --remote-debugging-pipe; needs Python and Chromium, no package."""

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
import base64


def chromium_path():
    """Where Chromium is, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    return None


class Page:
    """One tab. Every wait has an end and says what it waited for."""

    def __init__(self, browser, session):
        self.browser = browser
        self.session = session
        self.errors = []
        self.listeners = {}

    def listen(self, event, action):
        """Calls `action` with each event of a name; it runs on the reading thread and must not send."""
        self.listeners.setdefault(event, []).append(action)

    def send(self, method, **parameters):
        return self.browser.send(method, parameters, self.session)

    def run(self, expression, timeout=600):
        """The value of a JavaScript expression; promises are waited for."""
        answer = self.browser.send(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
            self.session,
            timeout,
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def until(self, expression, timeout=600, what=None):
        """Waits until an expression is true, asked again every 50 ms."""
        end = time.monotonic() + timeout
        last = None
        while time.monotonic() < end:
            try:
                last = self.run(f"(value => value instanceof Node ? true : value)({expression})", timeout=60)
            except AssertionError as error:
                last = f"{error}"
            else:
                if last:
                    return last
            time.sleep(0.05)
        body = self.run("document.body.innerText.slice(0, 1500)")
        raise AssertionError(f"waited {timeout} s for {what or expression}; last: {last!r}; the page says:\n{body}")

    def open(self, url):
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'", what="the page to load")

    def reload(self):
        self.run("window.isOld = true; location.reload()")
        self.until("!window.isOld && document.readyState === 'complete'", what="the page to load again")

    def click(self, selector):
        """A real mouse click in the middle of an element."""
        self.until(f"document.querySelector({json.dumps(selector)})", what=selector)
        box = self.run(
            "(element => { element.scrollIntoView({block: 'center'}); const box = element.getBoundingClientRect();"
            f"return [box.x + box.width / 2, box.y + box.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, text):
        self.send("Input.insertText", text=text)

    def key(self, key, code=None, modifiers=0):
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, " ": 32}
        common = {"key": key, "code": code or key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": modifiers}
        text = {"Enter": "\r", " ": " "}.get(key)
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screen(self, width, height, scale=1, mobile=False):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def theme(self, name):
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path, whole=False):
        image = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(image["data"]))


class Browser:
    """A headless Chromium with a profile of its own, gone at the end."""

    def __init__(self, language="en"):
        self.profile = tempfile.mkdtemp(prefix="martlet-browser-")
        command_read, self.command = os.pipe()
        self.answer, answer_write = os.pipe()
        arguments = [
            chromium_path(), "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--disable-component-update", "--hide-scrollbars", f"--user-data-dir={self.profile}", f"--lang={language}",
            "about:blank",
        ]

        def descriptors():
            # Chromium reads commands from descriptor 3 and writes answers to 4.
            os.dup2(command_read, 300)
            os.dup2(answer_write, 301)
            os.dup2(300, 3)
            os.dup2(301, 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=descriptors, close_fds=False,
        )
        os.close(command_read)
        os.close(answer_write)
        self.number = 0
        self.waiting = {}
        self.pages = {}
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.send("Browser.close", {}, timeout=60)
        except Exception:
            pass
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def page(self, language=None):
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        self.pages[session] = page
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            page.send(domain + ".enable")
        if language:
            page.send("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
        return page

    def send(self, method, parameters, session=None, timeout=600):
        self.number += 1
        number = self.number
        self.waiting[number] = queue.Queue()
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.command, json.dumps(message).encode() + b"\0")
        try:
            answer = self.waiting[number].get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"Chromium did not answer {method} within {timeout} s") from None
        finally:
            del self.waiting[number]
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self):
        rest = b""
        while True:
            block = os.read(self.answer, 1 << 16)
            if not block:
                return
            *messages, rest = (rest + block).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if message.get("id") in self.waiting:
                    self.waiting[message["id"]].put(message)
                page = self.pages.get(message.get("sessionId"))
                for action in page.listeners.get(message.get("method"), []) if page else []:
                    action(message["params"])
                if page is not None and message.get("method") == "Runtime.exceptionThrown":
                    details = message["params"]["exceptionDetails"]
                    page.errors.append(details.get("exception", {}).get("description") or details["text"])
                if page is not None and message.get("method") == "Log.entryAdded":
                    entry = message["params"]["entry"]
                    if entry["source"] == "security":
                        page.errors.append(entry["text"])
