#!/usr/bin/env python3
"""The dashboard through a real server and a real browser. dashboard.py BINARY [SCENARIO ...]; without names, all."""

import json
import os
import resource
import sqlite3
import sys
import threading
import time

from accessibility import check_accessibility, check_focus_order
from browser import Browser, chromium_path
from filled import fill
from service import Refused, Service, safetensors


def sign_in(page, service, token=None, path="/"):
    """Opens the page and signs in as a person does."""
    page.open(service.address + path)
    page.until("document.activeElement?.id === 'token'", what="the token field to have the focus")
    page.type(token or service.admin)
    page.key("Enter")
    page.until("document.querySelector('[data-view=main]')", what="the dashboard")


def text(page, selector):
    return page.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")


def badge(state):
    return f"document.querySelector('.title .badge')?.dataset.state === '{state}'"


def confirm(page, action):
    """Presses a run's button, and the button of the question that follows."""
    page.click(f"[data-action={action}]")
    page.until("document.getElementById('dialog').open")
    page.click("#dialog button[type=submit]")
    page.until("!document.getElementById('dialog').open", what="the dialog to close")


RUN_FILE = """name: by-hand
population: keyboards
model: {architecture: cifg-lstm, config: {vocab_size: 52, embedding_dim: 2, hidden_dim: 2}}
rounds: 2
cohort: {goal: 2, minimum: 2, over_selection: 1.0, max_participations: 5}
privacy: {mode: central, noise_multiplier: 100}
"""


def life_of_a_run(service, browser):
    """Created from a file, started, paused, resumed and watched to its end, by clicks."""
    page = browser.page()
    requests = watch_requests(browser, page)
    sign_in(page, service)
    assert "No runs yet" in text(page, "[data-view=no-runs]"), text(page, "main")
    service.population()
    page.click(".card-head button")
    page.until("document.getElementById('dialog').open")
    page.click("#run-text")
    page.type("population: nobody\nrounds: x\n")
    page.click("#dialog button[type=submit]")
    page.until("document.querySelector('#dialog .error li')", what="the fields that are wrong")
    assert "/rounds" in text(page, "#dialog .error") and "/model" in text(page, "#dialog .error")
    # A fault's pointer shows its place in the text.
    page.run("[...document.querySelectorAll('#dialog .error button')].find(b => b.textContent === '/rounds').click()")
    assert page.run("getSelection().toString() || (e => e.value.slice(e.selectionStart, e.selectionEnd))(document.getElementById('run-text'))") == "rounds:"
    page.run("document.getElementById('run-text').value = ''")
    page.click("#run-text")
    page.type(RUN_FILE)
    page.click("#dialog button[type=submit]")
    page.until("!document.querySelector('#dialog .plan').hidden", what="what the run would do")
    plan = text(page, "#dialog .plan")
    assert "parameters" in plan and "2 rounds of 2 updates; the population has 0 clients" in plan, plan
    assert "0.04 of 8 spent afterwards; 2 of 2 rounds fit" in plan and "a round assigns up to 2 clients" in plan, plan
    assert service.call("GET", "/v1/runs")["items"] == [], "a dry run stores nothing"
    assert page.run("document.activeElement.type") == "submit" and text(page, "#dialog button[type=submit]") == "Create"
    # What was changed after the check is checked again.
    page.run("(e => { e.focus(); e.setSelectionRange(e.value.length, e.value.length); })(document.getElementById('run-text'))")
    page.type("# changed")
    assert text(page, "#dialog button[type=submit]") == "Check" and page.run("document.querySelector('#dialog .plan').hidden")
    page.click("#dialog button[type=submit]")
    page.until("document.querySelector('#dialog button[type=submit]').innerText === 'Create'")
    page.click("#dialog button[type=submit]")
    page.until(badge("created"), what="the run to be shown as created")
    assert text(page, ".title h1") == "by-hand"
    assert text(page, ".terms").split("\n") == ["cifg-lstm", "2 updates a round", "FedAvg", "central privacy: z = 100, clip 1"], text(page, ".terms")
    run = service.call("GET", "/v1/runs")["items"][0]["id"]
    service.call("POST", f"/v1/runs/{run}/cancel", {})

    run = service.run(start=False)
    clients = service.clients(2)
    page.open(service.address + "/#/runs/" + run)
    page.until("document.querySelector('.title h1').innerText === 'keyboard-en'")
    page.until(badge("created"))
    confirm(page, "start")
    page.until(badge("running"), what="the run to be shown as running")
    service.measure(run, 0, accuracy=0.1, loss=3)
    work = [(client, service.assignment(client)) for client in clients]
    page.until("document.querySelector('.key[data-part=assigned] b')?.textContent === '2'", what="two assigned")
    service.deliver(*work[0])
    page.until("document.querySelector('.key[data-part=accepted] b')?.textContent === '1'", what="one accepted")
    service.deliver(*work[1])
    page.until("document.querySelector('.figures dd span').textContent === '1'", what="one round committed")
    service.measure(run, 1, accuracy=0.3, loss=2)
    confirm(page, "pause")
    page.until(badge("paused"))
    assert service.call("GET", f"/v1/runs/{run}")["state"] == "paused"
    assert "resumed" in text(page, ".waiting")
    confirm(page, "resume")
    page.until(badge("running"))
    service.round(clients)
    service.measure(run, 2, accuracy=0.4, loss=1.5)
    service.round(clients)
    service.measure(run, 3, accuracy=0.5, loss=1.25)
    page.until(badge("completed"), what="the run to be shown as completed")
    page.until("document.querySelector('[data-tone=accuracy] output b')?.textContent === '0.500'", what="the last accuracy")
    path = page.run("document.querySelector('[data-tone=accuracy] path.line').getAttribute('d')")
    assert path.count("L") == 3, path
    assert "best 0.500, version 3" in text(page, ".figures") and page.run("document.querySelectorAll('circle.best').length") == 2
    page.click("details summary")
    page.until("document.querySelector('tr[data-best] th')?.innerText === '3 ★ best'", what="the best version in the table")
    assert page.run("document.querySelector('[data-tone=epsilon] .limit') !== null")
    page.until("document.querySelector('.key[data-part=spent] b').textContent !== '0'")
    # Everything came from this server, and nothing broke the page's own policy.
    assert requests and all(url.startswith((service.address, "data:")) for url in requests), requests
    assert not page.errors, page.errors


def watch_requests(browser, page):
    """Collects the address of every request that the page makes from now on."""
    requests = []
    page.listen("Network.requestWillBeSent", lambda event: requests.append(event["request"]["url"]))
    return requests


def the_server_dies_and_comes_back(service, browser):
    """Killed and started again while the page is open: the page says so, keeps what it knows, and catches up."""
    service.population()
    run = service.run()
    clients = service.clients(2)
    page = browser.page()
    sign_in(page, service)
    service.round(clients)
    page.until("document.querySelector('.figures dd span')?.textContent === '1'")
    page.until("document.getElementById('connection').dataset.state === 'live'")
    service.kill()
    page.until("document.getElementById('connection').dataset.state === 'lost'", what="the page to notice")
    page.until("!document.querySelector('.notice').hidden", what="the notice")
    assert "does not answer" in text(page, ".notice")
    assert text(page, ".figures dd span") == "1", "what was known stays"
    service.start()
    page.until("document.getElementById('connection').dataset.state === 'live'", what="the page to come back by itself")
    page.until("document.querySelector('.notice').hidden")
    service.round(clients)
    page.until("document.querySelector('.figures dd span')?.textContent === '2'", what="the round after the restart")
    assert not page.errors, page.errors
    assert run in page.run("document.querySelector('.title code').textContent")


def tokens_and_roles(service, browser):
    """A wrong, an expired, a client's and a viewer's token each have a state of their own."""
    service.population()
    run = service.run()
    page = browser.page()
    page.open(service.address)
    page.until("document.activeElement?.id === 'token'")
    page.type("not-a-token")
    page.key("Enter")
    page.until("document.querySelector('[data-reason=expired]')", what="the refusal of a wrong token")
    client = service.clients(1)[0]
    page.type(client)
    page.key("Enter")
    page.until("document.querySelector('[data-reason=wrongKind]')", what="the refusal of a client's token")
    token, identifier = service.staff_token("viewer")
    page.type(token)
    page.key("Enter")
    page.until(badge("running"))
    assert page.run("localStorage.length") == 0 or token not in page.run("JSON.stringify(localStorage)")
    assert page.run("sessionStorage.getItem('martlet.token')") == token
    assert page.run("document.querySelector('[data-action=pause]').getAttribute('aria-disabled')") == "true"
    for button in ("[data-action=pause]", "[data-action=cancel]", ".card-head button"):
        page.click(button)
        page.until("document.getElementById('dialog').dataset.dialog === 'not-allowed' && document.getElementById('dialog').open")
        assert "operator's token" in text(page, "#dialog")
        page.key("Escape")
        page.until("!document.getElementById('dialog').open")
    assert service.call("GET", f"/v1/runs/{run}")["state"] == "running"
    service.call("DELETE", f"/v1/tokens/{identifier}")
    page.until("document.querySelector('[data-reason=expired]')", what="the token's end to be noticed")
    assert page.run("sessionStorage.getItem('martlet.token')") is None
    assert "keyboard-en" not in text(page, "body"), "nothing of the server may stay on the page"
    # A role that is lost between the look and the click is explained as well.
    operator, _ = service.staff_token("operator")
    page.type(operator)
    page.key("Enter")
    page.until(badge("running"))
    page.run("const real = fetch; window.fetch = (url, options) => options?.method === 'POST' ? Promise.resolve(new Response('{\"code\": \"forbidden\"}', {status: 403})) : real(url, options)")
    page.click("[data-action=pause]")
    page.click("#dialog button[type=submit]")
    page.until("document.getElementById('dialog').dataset.dialog === 'not-allowed'")
    assert not page.errors, page.errors


def a_server_without_tokens(service, browser):
    """Where everyone is an administrator (loopback only), the page asks for nothing."""
    with Service(service.binary, arguments=["--insecure-no-auth"]) as open_service:
        page = browser.page()
        page.open(open_service.address)
        page.until("document.querySelector('[data-view=no-runs]')", what="the dashboard without a token")
        assert page.run("document.getElementById('sign-out').hidden")
        assert not page.errors, page.errors


def a_server_that_is_starting(service, browser):
    """While the server recovers, the page is there and says so, before and after its first look."""
    service.population()
    service.run()
    seen, fresh = browser.page(), browser.page()
    sign_in(seen, service)
    seen.until(badge("running"))
    service.kill()
    # Somebody else holds the database: the server answers, and waits for it.
    database = sqlite3.connect(service.directory + "/martlet.sqlite", isolation_level=None)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    starting = threading.Thread(target=service.start)
    starting.start()
    seen.until("document.querySelector('.notice')?.dataset.kind === 'starting' && !document.querySelector('.notice').hidden", what="the page to say that the server starts")
    assert "is starting" in text(seen, ".notice h2") and "known at" in text(seen, ".notice"), text(seen, ".notice")
    assert text(seen, ".title h1") == "keyboard-en", "what was known stays"
    fresh.open(service.address)
    fresh.until("document.querySelector('[data-view=starting]')", what="a page that was opened now")
    check_accessibility(fresh, "starting")
    database.execute("ROLLBACK")
    database.close()
    starting.join()
    seen.until("document.getElementById('connection').dataset.state === 'live' && document.querySelector('.notice').hidden", what="the page to go on by itself")
    fresh.until("document.activeElement?.id === 'token'", what="the new page to ask for a token")
    assert not seen.errors and not fresh.errors, seen.errors + fresh.errors


def an_expired_token_at_a_button(service, browser):
    """A token that ends between the look and the click leads to the sign-in, and changes nothing."""
    service.population()
    run = service.run()
    for button, dialog in (("[data-action=pause]", "confirm"), (".card-head button", "create")):
        token, identifier = service.staff_token("operator")
        page = browser.page()
        sign_in(page, service, token)
        page.until(badge("running"))
        page.click(button)
        page.until(f"document.getElementById('dialog').dataset.dialog === '{dialog}' && document.getElementById('dialog').open")
        # The page does not hear of it before the click.
        page.run("connection.stop()")
        service.call("DELETE", f"/v1/tokens/{identifier}")
        if dialog == "create":
            page.click("#run-text")
            page.type(RUN_FILE)
        page.click("#dialog button[type=submit]")
        page.until("document.querySelector('[data-reason=expired]')", what="the sign-in")
        assert not page.run("document.getElementById('dialog').open")
        assert not page.errors, page.errors
    assert service.call("GET", f"/v1/runs/{run}")["state"] == "running"
    assert len(service.call("GET", "/v1/runs")["items"]) == 1


def a_long_run_stays_small(service, browser):
    """A page that stays open while a run goes from 1,000 to 5,000 rounds keeps as much as before, and older rounds are read when asked for."""
    service.population(epsilon=None)
    run = service.run(rounds=100_000, privacy={"mode": "none"})
    clients = service.clients(2)
    service.round(clients)
    service.kill()
    fill(service, run, rounds=1000)
    service.start()
    page = browser.page()
    sign_in(page, service)

    def shows(rounds):
        page.until(f"document.querySelector('.figures dd span')?.textContent === '{rounds:,}'", what=f"{rounds} rounds")
        page.until("document.getElementById('connection').dataset.state === 'live'")

    def used():
        for _ in range(3):
            page.send("HeapProfiler.collectGarbage")
        return page.send("Runtime.getHeapUsage")["usedSize"]

    def turn(rounds):
        service.kill()
        fill(service, run, rounds=rounds)
        service.start()
        shows(rounds)

    shows(1000)
    turn(1100)  # Warm: code that runs the first time takes memory once.
    first = used()
    turn(5000)
    last = used()
    print(f"memory after collection at 1,100 and 5,000 rounds: {first}, {last} bytes", flush=True)
    assert last < first + 150_000, f"the page grew from {first} to {last} bytes"
    points = page.run("[state.rounds.length, ...state.curves.series.map(item => item.points.length)]")
    assert points[0] <= 24 and max(points[1:]) <= 400, points
    # The extremes of the whole run are still in the curve.
    ends = page.run("(points => [points[0], points.at(-1)])(state.history.measured(accuracyNames)[0].points)")
    assert ends[0][0] == 1 and ends[1][0] == 5000, ends
    page.click("details summary")
    page.until("document.querySelectorAll('tbody tr').length === 20")
    page.click("details button")
    page.until("document.querySelectorAll('tbody tr').length >= 120", what="a hundred older rounds")
    numbers = page.run("[...document.querySelectorAll('tbody th')].map(e => Number.parseInt(e.textContent))")
    assert numbers == list(range(5001, 5001 - len(numbers), -1)), numbers
    service.round(clients)
    shows(5001)
    numbers = page.run("[...document.querySelectorAll('tbody th')].map(e => Number.parseInt(e.textContent))")
    assert numbers == list(range(numbers[0], numbers[0] - len(numbers), -1)) and numbers[0] == 5002, numbers
    assert not page.errors, page.errors


def unknown_runs_and_trouble(service, browser):
    """An unknown run, an exhausted budget, refused updates and abandoned rounds are told in plain words."""
    service.population(epsilon=0.2)
    run = service.run(cohort={"goal": 2, "minimum": 2, "over_selection": 1.0, "max_participations": 1000,
                              "selection_timeout_s": 1, "report_timeout_s": 600})
    clients = service.clients(2)
    page = browser.page()
    sign_in(page, service, path="/#/runs/run_nowhere")
    page.until("document.querySelector('[data-view=unknown-run]')")
    assert "run_nowhere" in text(page, "[data-view=unknown-run]")
    page.click("[data-view=unknown-run] a")
    page.until("document.querySelector('[data-view=run]')", what="the way back")
    page.until("document.querySelector('.problems').innerText.includes('ended without a model')", what="abandoned rounds")
    # An attempt lasts a second: on a slow machine it may be over when the update comes.
    status = None
    while status in (None, 409, 410):
        try:
            service.deliver(clients[0], service.assignment(clients[0]), (float("nan"), 0, 0, 0))
            raise AssertionError("a NaN must be refused")
        except Refused as refused:
            status = refused.status
    assert status == 422, status
    page.until("document.querySelector('.problems').innerText.includes('not_finite')", what="the refusal by code")
    service.call("POST", f"/v1/runs/{run}/cancel", {})
    page.until(badge("cancelled"))
    page.until("document.querySelector('.problems').innerText.includes('Nothing needs')", what="no more problems")
    assert not page.errors, page.errors


def a_failing_disk(service, browser):
    """What the disk does stands on the page with its way out, each file by itself, and goes when it is mended."""
    service.population()
    runs = [service.run(), None]
    # Another first model than the first run's, so that two files can be missed.
    runs[1] = service.call("POST", "/v1/runs", {
        "population": "keyboards", "rounds": 3, "model": {"architecture": "external"}, "cohort": {"goal": 2, "max_participations": 9},
        "privacy": {"mode": "central", "noise_multiplier": 200},
    })["id"]
    service.call("PUT", f"/v1/runs/{runs[1]}/model", safetensors([1, 2, 3, 4]), kind="application/vnd.safetensors")
    service.call("POST", f"/v1/runs/{runs[1]}/start", {})
    page = browser.page()
    sign_in(page, service)

    def problems(words, count):
        page.until(
            f"[...document.querySelectorAll('.problems li')].filter(e => e.innerText.includes({json.dumps(words)})).length === {count}",
            what=f"{count} problems that say {words!r}",
        )

    def weights(run):
        try:
            service.call("GET", f"/v1/runs/{run}/models/0/weights")
        except Refused as refused:
            return refused.status
        except json.JSONDecodeError:
            return 200
        except UnicodeDecodeError:
            return 200

    hashes = [service.call("GET", f"/v1/runs/{run}/models/0")["sha256"] for run in runs]
    paths = [os.path.join(service.directory, "blobs", sha256[:2], sha256) for sha256 in hashes]
    assert hashes[0] != hashes[1]
    for run, path in zip(runs, paths):
        os.rename(path, path + ".away")
        assert weights(run) == 503
    problems("is missing: restore blobs/", 2)
    os.rename(paths[1] + ".away", paths[1])
    problems("is missing: restore blobs/", 1)
    assert hashes[0] in text(page, ".problems"), text(page, ".problems")
    os.rename(paths[0] + ".away", paths[0])
    problems("is missing: restore blobs/", 0)
    # Of the same length, in place.
    content = open(paths[0], "rb").read()
    with open(paths[0], "r+b") as file:
        file.write(content[:-1] + bytes([content[-1] ^ 1]))
    assert weights(runs[0]) == 503
    problems("is not what was written: restore blobs/", 1)
    with open(paths[0], "r+b") as file:
        file.write(content)
    problems("is not what was written", 0)

    head = os.path.join(service.directory, "ledger.head")
    os.rename(head, head + ".away")
    os.mkdir(head)
    service.call("PATCH", "/v1/populations/keyboards/budget", {"epsilon": 7})
    problems("they go on by themselves, and lose nothing", 1)
    os.rmdir(head)
    os.rename(head + ".away", head)
    problems("second record", 0)

    limit = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        service.population("more", epsilon=None)
        raise AssertionError("a transaction that cannot be stored must be refused")
    except Refused as refused:
        assert refused.status == 503, refused
    problems("may not grow any more", 1)
    problems("To do: raise the limit", 1)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, limit)
    service.population("more", epsilon=None)
    problems("may not grow any more", 0)
    assert not page.errors, page.errors


def two_languages(service, browser):
    """Chinese by Accept-Language, English by a click, every word in both, nothing wider than a phone."""
    service.population()
    run = service.run()
    clients = service.clients(2)
    service.round(clients)
    service.measure(run, 1, accuracy=0.25, loss=2)
    page = browser.page("zh-CN,zh;q=0.9")
    sign_in(page, service)
    assert page.run("document.documentElement.lang") == "zh"
    page.until("document.querySelector('.waiting').innerText.startsWith('正在等待')")
    # The server's own sentences have their Chinese form: no English sentence is left on the page.
    left = page.run(
        "[...document.querySelectorAll('main p, main li, main span, main h2, main h3, main dt')].filter(e => !e.children.length)"
        ".map(e => e.textContent).filter(s => /[a-z]{2,} [a-z]{2,} [a-z]{2,}/.test(s))"
    )
    assert left == [], left
    page.screen(390, 844, mobile=True)
    for step in range(2):
        wide = page.run(
            "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.table, pre, svg, .visually-hidden, .skip, .quiet-text'))"
            ".map(e => e.outerHTML.slice(0, 80))"
        )
        assert wide == [] and page.run("document.documentElement.scrollWidth <= innerWidth"), wide
        if step == 0:
            page.click("#language")
            page.until("document.documentElement.lang === 'en' && document.querySelector('.waiting').innerText.startsWith('Waits for')")
    missing = page.run("[Object.keys(words.en).filter(k => !(k in words.zh)), Object.keys(words.zh).filter(k => !(k in words.en))].flat()")
    assert missing == [], missing
    holes = page.run("Object.keys(words.en).filter(k => String(words.en[k].match(/{\\w+}/g)?.sort()) !== String(words.zh[k].match(/{\\w+}/g)?.sort()))")
    assert holes == [], holes
    page.reload()
    page.until("document.querySelector('[data-view=main]')")
    assert page.run("document.documentElement.lang") == "en", "the choice is remembered"
    assert not page.errors, page.errors


def accessible_in_both_themes(service, browser):
    """Names, roles, contrast, headings and the order of the focus, on every view, light and dark."""
    service.population()
    page = browser.page()
    page.screen(1280, 900)
    page.open(service.address)
    page.until("document.querySelector('[data-view=sign-in]')")
    for theme in ("light", "dark"):
        page.theme(theme)
        check_accessibility(page, f"sign-in, {theme}")
    sign_in(page, service)
    check_accessibility(page, "no runs")
    run = service.run()
    clients = service.clients(2)
    service.round(clients)
    service.measure(run, 0, accuracy=0.1, loss=3)
    service.measure(run, 1, accuracy=0.25, loss=2)
    page.until("document.querySelector('[data-tone=accuracy] output b')?.textContent === '0.250'")
    page.run("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    page.until("document.querySelector('tbody tr')")
    for theme in ("light", "dark"):
        page.theme(theme)
        check_accessibility(page, f"run, {theme}")
    page.theme("light")
    check_focus_order(page)
    # A chart is read with the arrow keys.
    page.run("document.querySelector('[data-tone=loss] svg').focus()")
    page.key("Home")
    assert "3.000" in text(page, "[data-tone=loss] output"), text(page, "[data-tone=loss] output")
    page.key("ArrowRight")
    assert "2.000" in text(page, "[data-tone=loss] output")
    # A dialog takes the focus, keeps it, and gives it back.
    page.run("document.querySelector('[data-action=cancel]').focus()")
    page.key("Enter")
    page.until("document.getElementById('dialog').open")
    assert page.run("document.activeElement.value") == "close", "the safe answer has the focus"
    check_accessibility(page, "dialog")
    for _ in range(6):
        page.key("Tab")
        assert page.run("document.getElementById('dialog').contains(document.activeElement) || document.activeElement === document.body")
    page.key("Escape")
    page.until("!document.getElementById('dialog').open")
    assert page.run("document.activeElement.dataset.action") == "cancel", "the focus comes back"
    service.call("POST", f"/v1/runs/{run}/pause", {})
    page.until("document.querySelector('[data-action=resume]')")
    service.kill()
    page.until("!document.querySelector('.notice').hidden")
    check_accessibility(page, "lost connection")
    page.open(f"data:text/html,")
    service.start()
    for theme in ("light", "dark"):
        page.theme(theme)
        page.open(service.address + "/docs")
        check_accessibility(page, f"reference, {theme}", limit=400)
    assert not page.errors, page.errors


def words_of_an_analytics_run(service, browser):
    """A run that counts words shows the most frequent ones, and no curves of what it does not measure."""
    service.population(epsilon=None)
    run = service.call("POST", "/v1/runs", {
        "name": "vocabulary", "kind": "analytics", "population": "keyboards",
        "cohort": {"goal": 2, "minimum": 2, "over_selection": 1.0, "selection_timeout_s": 600, "report_timeout_s": 600},
        "analytics": {"method": "histogram", "candidates": ["maybe", "no", "yes"], "words_per_client": 2},
    })["id"]
    service.call("POST", f"/v1/runs/{run}/start", {})
    page = browser.page()
    sign_in(page, service)
    page.until("document.querySelector('[data-view=words]').innerText.includes('Nothing yet')", what="no words yet")
    assert "words: histogram" in text(page, ".terms") and "no differential privacy" in text(page, ".terms"), text(page, ".terms")
    for client, counts in zip(service.clients(2), ((0, 1, 1), (0, 0, 1))):
        work = service.assignment(client)
        service.call("PUT", work["update_url"], safetensors(counts, {"base": work["model"]["sha256"]}, "counts", [3]), client, "application/vnd.safetensors")
    page.until("document.querySelectorAll('.words li').length === 2", what="the words that were found")
    assert text(page, ".words").split("\n") == ["yes", "2", "no", "1"], text(page, ".words")
    assert "1 candidates with a count under 1 are not shown" in text(page, "[data-view=words]"), text(page, "[data-view=words]")
    assert not page.run("document.querySelector('[data-tone=accuracy]').checkVisibility()")
    for theme in ("light", "dark"):
        page.theme(theme)
        check_accessibility(page, f"analytics, {theme}")
    assert not page.errors, page.errors


def terms_of_private_runs(service, browser):
    """Mechanism, clipping, target and the bound as it is adapted stand under the run's name."""
    service.population(epsilon=30)
    page = browser.page()
    sign_in(page, service)
    cohort = {"goal": 2, "minimum": 2, "over_selection": 1.0, "max_participations": 3}
    for privacy, changes, wanted in (
        ({"mode": "central", "mechanism": "banded_matrix", "noise_multiplier": 20, "band": 4}, {"min_separation_rounds": 5},
         ["central privacy: banded matrix 4, z = 20, clip 1"]),
        ({"mode": "central", "target": {"epsilon": 5}}, {}, ["central privacy: z = 1.54, clip 1", "target ε = 5"]),
        ({"mode": "local", "mechanism": "laplace", "noise_multiplier": 20, "clipping": {"policy": "l1", "norm": 1}}, {},
         ["local privacy: laplace, z = 20, clip 1 (l1)"]),
        ({"mode": "central", "noise_multiplier": 20, "clipping": {"policy": "adaptive", "norm": 1}}, {},
         ["central privacy: z = 20, clip 1 (adaptive)"]),
    ):
        run = service.run(privacy=privacy, cohort={**cohort, **changes}, start=False)
        page.open(service.address + "/#/runs/" + run)
        page.until(f"document.querySelector('.title code')?.textContent === '{run}'", what="the run")
        page.until("document.querySelector('.terms').innerText.includes('privacy:')", what="its terms")
        shown = text(page, ".terms").split("\n")
        assert shown == ["external", "2 updates a round", "FedAvg", *wanted], shown
    # The last one adapts its bound with each version.
    service.call("POST", f"/v1/runs/{run}/start", {})
    page.until(badge("running"))
    assert "clip now" not in text(page, ".terms")
    for client in service.clients(2):
        service.deliver(client, service.assignment(client), metadata={"within_norm": "1"})
    page.until("document.querySelector('.terms').innerText.includes('clip now')", what="the adapted bound")
    assert not page.errors, page.errors


SCENARIOS = [
    life_of_a_run, the_server_dies_and_comes_back, a_server_that_is_starting, tokens_and_roles, an_expired_token_at_a_button,
    a_server_without_tokens, unknown_runs_and_trouble, a_failing_disk, two_languages, accessible_in_both_themes, a_long_run_stays_small,
    terms_of_private_runs, words_of_an_analytics_run,
]


def main():
    binary, names = sys.argv[1], sys.argv[2:]
    if not chromium_path():
        print("skipped: no Chromium here")
        return
    known = {scenario.__name__: scenario for scenario in SCENARIOS}
    with Browser() as browser:
        for name in names or known:
            start = time.monotonic()
            with Service(binary) as service:
                known[name](service, browser)
            print(f"passed: {name} in {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
