#!/usr/bin/env python3
"""Checks the form of the documents, without a build. document_rules.py [--self-test | --write-modules]

Each rule below takes the repository's root and returns findings: file, line, what is wrong, and what to do. With
--self-test every rule is run on a made-up repository that breaks it, and must find that and nothing else.
--write-modules writes ARCHITECTURE.md's table of modules from Package.swift.
"""

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SENTENCE_WORD_LIMIT = 35
ARCHITECTURE_LINE_LIMIT = 250
CHANGELOG_LINE_LIMIT = 200
CHANGELOG_HEADINGS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
DECISION_HEADINGS = ("Context", "Decision", "Turned down")
# Their text is made by a test from the code, so it is mended there.
GENERATED = ("docs/settings.md",)
TABLE_BEGIN, TABLE_END = "<!-- modules: begin -->", "<!-- modules: end -->"


class Finding:
    def __init__(self, path, line, wrong, do):
        self.path, self.line, self.wrong, self.do = path, line, wrong, do

    def __str__(self):
        return f"{self.path}:{self.line}: {self.wrong}. {self.do}"


# MARK: - Reading Markdown


def lines_without_code(text):
    """(number, line) of all lines outside of fenced and indented code blocks and comments."""
    found, fence, indented, previous = [], None, False, ""
    text = re.sub(r"<!--.*?-->", lambda match: re.sub(r"[^\n]", " ", match[0]), text, flags=re.S)
    in_list = False
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
            previous = ""
            continue
        if mark:
            fence = mark[1]
            continue
        if re.match(r"\s*([-*]|\d+\.) ", line):
            in_list = True
        elif line and not line[0].isspace():
            in_list = False
        # Inside of a list indented lines are its paragraphs.
        if line.startswith("    ") and not in_list and (indented or not previous.strip()):
            indented = True
            continue
        if line.strip():
            indented = False
        found.append((number, line))
        previous = line
    return found


def passages(text):
    """(line number, text) of each paragraph, list item, heading and table cell."""
    found, start, gathered = [], 0, []

    def finish():
        if gathered:
            found.append((start, " ".join(gathered)))
        gathered.clear()

    last = 0
    for number, line in lines_without_code(text):
        stripped = line.strip()
        if number != last + 1 or not stripped:
            finish()
        last = number
        if not stripped:
            continue
        if stripped.startswith("|"):
            finish()
            for cell in re.split(r"(?<!\\)\|", stripped.strip("|")):
                if cell.strip(" -:"):
                    found.append((number, cell.strip()))
            continue
        if stripped.startswith("#"):
            finish()
            found.append((number, stripped.lstrip("# ")))
            continue
        item = re.match(r"(?:[-*+]|\d+\.) +(.*)$", stripped)
        if item or not gathered:
            finish()
            start = number
            gathered.append(item[1] if item else stripped)
        else:
            gathered.append(stripped)
    finish()
    return found


def sentences(passage):
    """The sentences of one passage. Code counts as one word, a link as its text; an em-dot separates entries of a line."""
    plain = re.sub(r"!\[[^\]]*\]\([^)]*\)", " ", passage)
    plain = re.sub(r"(`+).+?\1", "code", plain)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    plain = re.sub(r"<[^>]*>", " ", plain)
    plain = plain.replace("**", "").replace("__", "")
    # An abbreviation ends no sentence.
    plain = re.sub(r"\b(e\.g|i\.e|et al|vs|cf|No)\.", r"\1", plain)
    return [part for part in re.split(r"(?<=[.!?])[\"')\]*_”]*\s+|\s+·\s+|(?<=[.!?]\))\s+", plain) if part.strip()]


def word_count(sentence):
    return sum(1 for word in sentence.split() if any(character.isalnum() for character in word))


def anchor(heading):
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def prose_documents(root):
    names = [root / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [path for path in names if path.exists()] + sorted((root / "docs").rglob("*.md"))


# MARK: - Rules


def long_sentences(root):
    found = []
    for path in prose_documents(root):
        if str(path.relative_to(root)) in GENERATED:
            continue
        for line, passage in passages(path.read_text()):
            for sentence in sentences(passage):
                count = word_count(sentence)
                if count > SENTENCE_WORD_LIMIT:
                    beginning = " ".join(sentence.split()[:6])
                    found.append(Finding(path.relative_to(root), line, f"a sentence of {count} words, “{beginning} …”",
                                         f"Divide it: {SENTENCE_WORD_LIMIT} words at most."))
    return found


def long_architecture(root):
    path = root / "ARCHITECTURE.md"
    count = len(path.read_text().splitlines())
    if count <= ARCHITECTURE_LINE_LIMIT:
        return []
    return [Finding("ARCHITECTURE.md", ARCHITECTURE_LINE_LIMIT + 1, f"{count} lines",
                    f"{ARCHITECTURE_LINE_LIMIT} at most: move what is about one module to its .docc page, and reasons to docs/decisions.")]


def linked_documents(root):
    examples = sorted((root / "Examples").rglob("README.md")) if (root / "Examples").exists() else []
    return [*prose_documents(root), *(path for path in [root / "CHANGELOG.md"] if path.exists()), *examples]


def broken_links(root):
    """Every relative link leads to a file that is there, and to a heading that it has."""
    found, headings = [], {}
    for path in linked_documents(root):
        for number, line in lines_without_code(path.read_text()):
            line = re.sub(r"(`+).+?\1", lambda match: "`" if "](" in match[0] else match[0], line)
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if re.match(r"[a-z]+:", target):
                    continue
                file, _, place = target.partition("#")
                goal = (path.parent / file).resolve() if file else path
                if not goal.exists():
                    found.append(Finding(path.relative_to(root), number, f"a link to {target}, which is not there",
                                         "Name the file by its path from this document."))
                elif place and goal.suffix == ".md":
                    if goal not in headings:
                        headings[goal] = {anchor(line.lstrip("# ")) for _, line in lines_without_code(goal.read_text())
                                          if line.startswith("#")}
                    if place not in headings[goal]:
                        found.append(Finding(path.relative_to(root), number, f"a link to {target}, whose heading is not there",
                                             f"Choose one of {', '.join(sorted(headings[goal]))}."))
    return found


def unlisted_documents(root):
    """The index names every document."""
    index = root / "docs" / "README.md"
    named = re.findall(r"\]\(([^)#\s]+)", index.read_text())
    return [Finding("docs/README.md", 1, f"docs/{path.name} is not in the index", "Add a row for it.")
            for path in sorted((root / "docs").glob("*.md")) if path != index and path.name not in named]


NAMED_FILE = re.compile(r"`((?:Sources|Tests|docs|scripts|Examples|docker|Plugins)/[^`\s]*)`")


def missing_files(root):
    """The files that ARCHITECTURE and CONTRIBUTING name are there. `*` stands for a part of a name, <Module> for any."""
    found = []
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"):
        path = root / name
        if not path.exists():
            continue
        for number, line in lines_without_code(path.read_text()):
            for named in NAMED_FILE.findall(line):
                pattern = re.sub(r"<[^>]*>", "*", named)
                if not any(root.glob(pattern.rstrip("/"))):
                    found.append(Finding(name, number, f"`{named}` is not there", "Name the file that has its contents now."))
    return found


def decision_files(root):
    return sorted((root / "docs" / "decisions").glob("*.md"))


def decisions_out_of_form(root):
    """One file a decision, numbered without gaps, with its three headings; and what mentions a decision finds it."""
    found, numbers = [], []
    for path in decision_files(root):
        place = path.relative_to(root)
        match = re.fullmatch(r"(\d{4})-[a-z0-9-]+\.md", path.name)
        if not match:
            found.append(Finding(place, 1, "not named NNNN-title.md", "Rename it: four digits, then the title in lower case with hyphens."))
            continue
        number = int(match[1])
        numbers.append(number)
        lines = path.read_text().splitlines()
        if not lines or not lines[0].startswith(f"# {number}. "):
            found.append(Finding(place, 1, "the first line is not the title", f"Begin with “# {number}. ”."))
        headings = tuple(line[3:] for line in lines if line.startswith("## "))
        if headings != DECISION_HEADINGS:
            found.append(Finding(place, 1, f"headings {', '.join(headings) or 'none'}", f"Use {', '.join(DECISION_HEADINGS)}, in this order."))
    for expected, number in enumerate(sorted(numbers), 1):
        if number != expected:
            found.append(Finding("docs/decisions", 1, f"no decision {expected}, or one number twice", "Number them without gaps; a withdrawn one keeps its file."))
            break
    for path in [*linked_documents(root), *sorted((root / "Sources").rglob("*.swift"))]:
        for line_number, line in enumerate(path.read_text().splitlines(), 1):
            for number in re.findall(r"\b[Dd]ecision (\d+)\b", line):
                if int(number) not in numbers:
                    found.append(Finding(path.relative_to(root), line_number, f"there is no decision {number}", "Name one of docs/decisions."))
    return found


def changelog_out_of_form(root):
    """Releases with dates, newest first, under known headings, one line for each change."""
    path = root / "CHANGELOG.md"
    if not path.exists():
        return []
    found, releases, section, entered = [], [], None, False

    def find(number, wrong, do):
        found.append(Finding("CHANGELOG.md", number, wrong, do))

    for number, line in enumerate(path.read_text().splitlines(), 1):
        if len(line) > CHANGELOG_LINE_LIMIT:
            find(number, f"a line of {len(line)} characters", f"{CHANGELOG_LINE_LIMIT} at most: say what a user notices.")
        if line.startswith("## "):
            section, entered = None, True
            if line == "## Unreleased":
                if releases:
                    find(number, "Unreleased is not the first section", "Move it to the top.")
                releases.append(((10**9,), "9999-99-99"))
                continue
            match = re.fullmatch(r"## (\d+)\.(\d+)\.(\d+) - (\d{4}-\d{2}-\d{2})", line)
            if not match:
                find(number, "not a release's heading", "Write “## 1.2.3 - 2026-01-31”.")
                continue
            release = (tuple(int(match[part]) for part in (1, 2, 3)), match[4])
            if releases and (release[0] >= releases[-1][0] or release[1] > releases[-1][1]):
                find(number, "a release that is newer than the one above it", "Put the newest first.")
            releases.append(release)
        elif line.startswith("### "):
            section = line[4:]
            if section not in CHANGELOG_HEADINGS:
                find(number, f"heading {section}", f"Use one of {', '.join(CHANGELOG_HEADINGS)}.")
        elif line.startswith("- "):
            if section is None:
                find(number, "a change under no heading", f"Put it under one of {', '.join(CHANGELOG_HEADINGS)}.")
        elif line.strip() and entered:
            find(number, "neither a heading nor a change", "One line for each change, beginning with “- ”.")
    if not releases:
        find(1, "no releases", "Begin with “## Unreleased”.")
    return found


def glossary_without_code(root):
    """What the glossary of docs/concepts.md calls a name in code is one."""
    path = root / "docs" / "concepts.md"
    found, inside, words = [], False, None
    for number, line in lines_without_code(path.read_text()):
        if line.startswith("#"):
            inside = line == "## Glossary"
        cells = line.strip().strip("|").split("|")
        if not inside or not line.startswith("|") or len(cells) < 3:
            continue
        if words is None:
            words = set(re.findall(r"\w+", " ".join(source.read_text() for source in sorted((root / "Sources").rglob("*.swift")))))
        for name in re.findall(r"`(\w+)`", cells[2]):
            if name not in words:
                found.append(Finding("docs/concepts.md", number, f"no Swift source has the name {name}", "Write the name that it has now."))
    return found


# MARK: - Commands and headings that others name

def command_tree(root):
    """The words of each command of the command line: {command: set of its subcommands}; and the names of all options."""
    named, subcommands, options = {}, {}, {"help", "version", "experimental-dump-help"}
    for path in sorted((root / "Sources" / "martlet").rglob("*.swift")):
        text = path.read_text()
        starts = [match for match in re.finditer(r"\bstruct (\w+): (?:Async)?ParsableCommand\b", text)]
        for match, following in zip(starts, [*(next.start() for next in starts[1:]), len(text)]):
            body = text[match.end():following]
            if name := re.search(r'commandName: "([^"]+)"', body):
                named[match[1]] = name[1]
            if place := re.search(r"subcommands: \[", body):
                subcommands[match[1]] = re.findall(r"(\w+)\.self", balanced(body, place.end() - 1))
        options |= set(re.findall(r'\.customLong\("([^"]+)"\)', text))
        for match in re.finditer(r"@(?:Option|Flag)\b", text):
            variable = re.search(r"\bvar\s+(\w+)", text[match.end():])
            options.add(re.sub(r"(?<!^)([A-Z])", r"-\1", variable[1]).lower())

    def word(kind):
        return named.get(kind) or re.sub(r"(?<!^)([A-Z])", r"-\1", kind).lower()

    tops = subcommands.get("Martlet", [])
    return {word(kind): {word(part) for part in subcommands.get(kind, [])} for kind in tops}, options


def pieces_of_code(path):
    """(line number, text) of what a file shows as code: in Markdown code spans and fenced blocks, elsewhere each line."""
    text = path.read_text()
    fence = False
    for number, line in enumerate(text.splitlines(), 1):
        if path.suffix != ".md":
            yield number, line
        elif re.match(r"\s*(```|~~~)", line):
            fence = not fence
        elif fence or line.startswith("    "):
            yield number, line
        else:
            yield from ((number, span) for span in re.findall(r"`([^`]+)`", line))


def unknown_commands(root):
    """Every `martlet …` that documents show is a command, and its options are there; so is a group's name before a word. `from martlet
    import` is Python."""
    tree, options = command_tree(root)
    if not tree:
        return []
    found = []
    others = [root / "openapi.yaml", *sorted((root / "docker").rglob("*.y*ml")), *sorted((root / "Sources").rglob("*.docc/*.md")),
              *sorted((root / "Sources").rglob("*.swift")), *sorted((root / "scripts").glob("*"))]
    groups = "|".join(name for name, parts in tree.items() if parts)
    for path in [*linked_documents(root), *(path for path in others if path.is_file())]:
        for number, code in pieces_of_code(path):
            def find(wrong, do):
                found.append(Finding(path.relative_to(root), number, wrong, do))

            for match in re.finditer(r"(?<![\w/.:@-])(?<!-[gu] )martlet (?!is |import )([a-z][a-z-]*)((?: +[^|;&#]*)?)", code):
                command, rest = match[1], match[2]
                if command not in tree:
                    find(f"`martlet {command}`, which is no command", f"Choose one of {', '.join(sorted(tree))}.")
                    continue
                part = re.match(r" +([a-z][a-z-]*)", rest)
                if tree[command] and part and part[1] not in tree[command]:
                    find(f"`martlet {command} {part[1]}`, which is no command", f"Choose one of {', '.join(sorted(tree[command]))}.")
                for option in re.findall(r"(?<=\s)--([a-z][a-z0-9-]*)", rest):
                    if option not in options:
                        find(f"`--{option}` after martlet {command}, which is no option of the command line", "Name one that --help shows.")
            if path.suffix == ".md" and groups and (match := re.fullmatch(rf"({groups}) ([a-z][a-z-]*)(?: .*)?", code)):
                if match[2] not in tree[match[1]]:
                    find(f"`{match[1]} {match[2]}`, which is no command", f"Choose one of {', '.join(sorted(tree[match[1]]))}.")
    return found


def alerts_without_heading(root):
    """What an alert's action names of a document is a heading of it, or is written in it as code."""
    found = []
    for path in sorted((root / "docker").rglob("*.yml")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name, place in re.findall(r"(docs/[\w-]+\.md), '([^']+)'", line):
                document = root / name
                text = document.read_text() if document.exists() else ""
                headings = [line.lstrip("# ") for _, line in lines_without_code(text) if line.startswith("#")]
                if place not in headings and f"`{place}`" not in text:
                    found.append(Finding(path.relative_to(root), number, f"{name} has neither a heading nor a code ‘{place}’",
                                         f"Choose one of {', '.join(headings) or 'a document that is there'}."))
    return found


def swift_versions_differ(root):
    """README and the set-up ask for the toolchain that the image builds with."""
    image = root / "docker" / "Dockerfile"
    match = re.search(r"^FROM swift:(\d+\.\d+)", image.read_text(), re.M) if image.exists() else None
    found = []
    for name in ("README.md", "scripts/install-packages"):
        path = root / name
        lines = path.read_text().splitlines() if match and path.exists() else []
        named = [(number, version) for number, line in enumerate(lines, 1) for version in re.findall(r"\bSwift (\d+(?:\.\d+)?)", line)]
        found += [Finding(name, number, f"Swift {version}, where docker/Dockerfile has {match[1]}", f"Name {match[1]}.")
                  for number, version in named if version != match[1]]
    return found


# MARK: - The table of modules


def balanced(text, start):
    """The text between the parenthesis or bracket at `start` and the one that closes it."""
    depth, index, quoted = 0, start, False
    while index < len(text):
        character = text[index]
        if character == '"' and text[index - 1] != "\\":
            quoted = not quoted
        elif not quoted:
            depth += character in "(["
            depth -= character in ")]"
            if depth == 0:
                return text[start + 1:index]
        index += 1
    raise ValueError("unbalanced")


def entries(text):
    """The entries of an array literal."""
    found, depth, start, quoted = [], 0, 0, False
    for index, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif not quoted:
            depth += character in "(["
            depth -= character in ")]"
            if character == "," and depth == 0:
                found.append(text[start:index])
                start = index + 1
    return [entry.strip() for entry in [*found, text[start:]] if entry.strip()]


def package_modules(text):
    """Name and dependencies, as the table writes them, of each target of Package.swift that is part of the product: no
    tests, nothing under Tests, no plugins."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
    traits = dict(re.findall(r"let (\w+) = TargetDependencyCondition\.when\(traits: \[\"(\w+)\"\]\)", text))
    start = re.search(r"\n    targets: \[", text)
    modules = {}
    for target in entries(balanced(text, start.end() - 1)):
        kind = re.match(r"\.(\w+)\(", target)
        body = balanced(target, target.index("("))
        name = re.match(r"\s*name: \"([^\"]+)\"", body)[1]
        path = re.search(r"\bpath: \"([^\"]+)\"", body)
        if kind[1] in ("testTarget", "plugin") or (path and path[1].startswith("Tests/")):
            continue
        ours, others = [], []
        place = re.search(r"\bdependencies: \[", body)
        for entry in entries(balanced(body, place.end() - 1)) if place else []:
            plain = re.fullmatch(r'"([^"]+)"', entry)
            if plain:
                ours.append(f"`{plain[1]}`")
                continue
            named = re.search(r'name: "([^"]+)"', entry)[1]
            condition = re.search(r"condition: (\w+)", entry)
            trait = f" (trait `{traits[condition[1]]}`)" if condition and condition[1] in traits else ""
            (others if entry.startswith(".product") else ours).append(f"`{named}`" + ("" if entry.startswith(".product") else trait))
        modules[name] = ", ".join(sorted(ours, key=str.lower)) + ("; " if ours and others else "") + (
            "packages " + ", ".join(sorted(others, key=str.lower)) if others else "") or "–"
    return modules


def imports_unlisted(root):
    """A target imports a module of the package, or a product that the package names, only if Package.swift lists it for the target."""
    text = re.sub(r"^\s*//.*$", "", (root / "Package.swift").read_text(), flags=re.M)
    start = re.search(r"\n    targets: \[", text)
    targets = {}
    for target in entries(balanced(text, start.end() - 1)):
        body = balanced(target, target.index("("))
        name = re.match(r"\s*name: \"([^\"]+)\"", body)[1]
        path = re.search(r"\bpath: \"([^\"]+)\"", body)
        folder = path[1] if path else ("Tests/" if target.startswith(".testTarget") else "Sources/") + name
        place = re.search(r"\bdependencies: \[", body)
        listed = entries(balanced(body, place.end() - 1)) if place else []
        targets[name] = (folder, {re.search(r'"([^"]+)"', entry)[1] for entry in listed})
    known = set(targets).union(*(listed for _, listed in targets.values()))
    pattern = re.compile(r"^(?:@\w+ )*(?:(?:package|public|internal|private) )?import (?:(?:class|enum|func|protocol|struct) )?(\w+)", re.M)
    found = []
    for name, (folder, listed) in targets.items():
        for path in sorted((root / folder).rglob("*.swift")):
            source = path.read_text()
            for match in pattern.finditer(source):
                if match[1] in known - listed - {name}:
                    found.append(Finding(str(path.relative_to(root)), source.count("\n", 0, match.start()) + 1,
                                         f"{name} imports {match[1]}, which Package.swift does not list for it",
                                         "List it, or do without it: what is not listed is linked by chance."))
    return found


def module_rows(text):
    """(line number, name, purpose, dependencies) of the table between the markers."""
    rows, inside = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() in (TABLE_BEGIN, TABLE_END):
            inside = line.strip() == TABLE_BEGIN
        elif inside and line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            rows.append((number, cells[0].strip("`"), *(cells[1:] + ["", ""])[:2]))
    return rows


def modules_differ(root):
    """The module table is what Package.swift says."""
    do = "Run Tests/Python/document_rules.py --write-modules, then say its purpose in the table."
    text = (root / "ARCHITECTURE.md").read_text()
    if TABLE_BEGIN not in text or TABLE_END not in text:
        return [Finding("ARCHITECTURE.md", 1, "no module table between its markers", f"Put it between {TABLE_BEGIN} and {TABLE_END}.")]
    modules = package_modules((root / "Package.swift").read_text())
    rows = module_rows(text)
    found = []
    for number, name, purpose, dependencies in rows:
        if name not in modules:
            found.append(Finding("ARCHITECTURE.md", number, f"module {name} is not in Package.swift", do))
        elif dependencies != modules[name]:
            found.append(Finding("ARCHITECTURE.md", number, f"{name} depends on {modules[name]}, and not on {dependencies}", do))
        elif not purpose:
            found.append(Finding("ARCHITECTURE.md", number, f"{name} has no purpose", "Say in a line what it is for."))
    names = [row[1] for row in rows]
    for name in modules:
        if names.count(name) != 1:
            found.append(Finding("ARCHITECTURE.md", 1, f"module {name} of Package.swift is {names.count(name)} times in the table", do))
    return found


def write_modules(root):
    """Writes the table's names and dependencies anew, in the order of Package.swift, and keeps each purpose."""
    path = root / "ARCHITECTURE.md"
    text = path.read_text()
    purposes = {name: purpose for _, name, purpose, _ in module_rows(text)}
    modules = package_modules((root / "Package.swift").read_text())
    rows = [f"| `{name}` | {purposes.get(name, '')} | {dependencies} |" for name, dependencies in modules.items()]
    begin, end = text.index(TABLE_BEGIN), text.index(TABLE_END)
    table = "\n".join([TABLE_BEGIN, "| module | purpose | depends on |", "|---|---|---|", *rows, ""])
    path.write_text(text[:begin] + table + text[end:])


RULES = [modules_differ, imports_unlisted, long_sentences, long_architecture, broken_links, unlisted_documents, missing_files,
         decisions_out_of_form, glossary_without_code, changelog_out_of_form, unknown_commands, alerts_without_heading,
         swift_versions_differ]


# MARK: - Self-test

SOUND = {
    "Package.swift": """
let curl = TargetDependencyCondition.when(traits: ["Curl"])
let package = Package(
    name: "p",
    targets: [
        .systemLibrary(name: "CCurl"),
        .target(name: "A", dependencies: [.target(name: "CCurl", condition: curl), .product(name: "Log", package: "log")]),
        .target(name: "T", dependencies: ["A"], path: "Tests/T"),
        .testTarget(name: "ATests", dependencies: ["A"]),
    ]
)
""",
    "ARCHITECTURE.md": f"""# Architecture

{TABLE_BEGIN}
| module | purpose | depends on |
|---|---|---|
| `CCurl` | libcurl | – |
| `A` | all | `CCurl` (trait `Curl`); packages `Log` |
{TABLE_END}

`Sources/A/A.swift` begins; see [decision 1](docs/decisions/0001-first.md).
""",
    "CONTRIBUTING.md": "# Contributing\n\nA rule is a file of `Sources/<Module>`.\n",
    "README.md": "# P\n\nSee [the words](docs/words.md#two-words).\n",
    "CHANGELOG.md": "# Changes\n\nNewest first.\n\n## Unreleased\n\n## 0.2.0 - 2026-02-01\n\n### Fixed\n- One.\n\n## 0.1.0 - 2026-01-01\n\n### Added\n- Two.\n",
    "Sources/A/A.swift": "// Decision 1.\n",
    "Sources/martlet/Martlet.swift": """
@main struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "martlet", subcommands: [RunCommand.self, Serve.self])
}
struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "run", subcommands: [Create.self])
    struct Create: ParsableCommand { @Flag(help: "Only say what it costs.") var dryRun = false }
}
struct Serve: ParsableCommand {}
""",
    "docker/alerts.yml": "action: \"See docs/words.md, 'Two words', and docs/words.md, 'storage_failed'.\"\n",
    "docker/Dockerfile": "FROM swift:6.3-bookworm AS build\n",
    "scripts/install-packages": "echo 'Install Swift 6.3.'\n",
    "docs/README.md": "# Index\n\n[words](words.md) [concepts](concepts.md)\n",
    "docs/concepts.md": "# Concepts\n\n## Glossary\n\n| term | means | in code |\n|---|---|---|\n| one | a decision | `Decision` |\n",
    "docs/words.md": "# Words\n\n## Two words\n\nShort.\n\n```\nmartlet serve &\n" + "code " * 50 + "\n```\n\n"
                     "`martlet run create FILE --dry-run` says `storage_failed`, as `run create` does.\n",
    "docs/decisions/0001-first.md": "# 1. First\n\n## Context\n\nC.\n\n## Decision\n\nD.\n\n## Turned down\n\nT.\n",
}
LONG = "so " * SENTENCE_WORD_LIMIT + "long."
# (rule, file, what is replaced, by what): each must be found by that rule, and by no other.
BROKEN = [
    (modules_differ, "Package.swift", '.systemLibrary(name: "CCurl"),', '.systemLibrary(name: "CCurl"),\n        .target(name: "B"),'),
    (modules_differ, "Package.swift", '.systemLibrary(name: "CCurl"),', ""),
    (modules_differ, "Package.swift", ', .product(name: "Log", package: "log")', ""),
    (modules_differ, "Package.swift", ", condition: curl", ""),
    (modules_differ, "ARCHITECTURE.md", "| libcurl |", "| |"),
    (modules_differ, "ARCHITECTURE.md", TABLE_BEGIN, ""),
    (long_sentences, "README.md", "See ", LONG + " See "),
    (long_sentences, "docs/words.md", "Short.", "- " + LONG),
    (long_sentences, "docs/words.md", "Short.", f"| a | {LONG} |\n|---|---|"),
    (long_sentences, "docs/words.md", "## Two words", "## Two words\n\n" + "`a b` [c d](words.md) " * 12),
    (long_sentences, "docs/decisions/0001-first.md", "T.", LONG),
    (long_architecture, "ARCHITECTURE.md", "# Architecture", "# Architecture\n" + "\nA line.\n" * ARCHITECTURE_LINE_LIMIT),
    (broken_links, "README.md", "words.md#two-words", "word.md"),
    (broken_links, "README.md", "#two-words", "#three-words"),
    (unlisted_documents, "docs/README.md", "[words](words.md)", "words"),
    (missing_files, "ARCHITECTURE.md", "`Sources/A/A.swift`", "`Sources/A/B.swift`"),
    (missing_files, "CONTRIBUTING.md", "`Sources/<Module>`", "`Tests/<Module>`"),
    (decisions_out_of_form, "docs/decisions/0001-first.md", "## Turned down", "## Rejected"),
    (decisions_out_of_form, "docs/decisions/0001-first.md", "# 1. First", "# First"),
    (decisions_out_of_form, "Sources/A/A.swift", "Decision 1", "Decision 2"),
    (glossary_without_code, "docs/concepts.md", "`Decision`", "`Decree`"),
    (changelog_out_of_form, "CHANGELOG.md", "0.2.0 - 2026-02-01", "0.2.0 - 2025-02-01"),
    (changelog_out_of_form, "CHANGELOG.md", "0.2.0", "0.0.2"),
    (changelog_out_of_form, "CHANGELOG.md", "0.2.0 - 2026-02-01", "0.2.0"),
    (changelog_out_of_form, "CHANGELOG.md", "### Fixed", "### Mended"),
    (changelog_out_of_form, "CHANGELOG.md", "### Fixed\n", ""),
    (changelog_out_of_form, "CHANGELOG.md", "- One.", "- One\n  and more."),
    (changelog_out_of_form, "CHANGELOG.md", "- One.", "- " + "One " * CHANGELOG_LINE_LIMIT),
    (unknown_commands, "docs/words.md", "martlet run create", "martlet run plan"),
    (unknown_commands, "docs/words.md", "martlet run create", "martlet plan"),
    (unknown_commands, "docs/words.md", "martlet serve", "martlet server"),
    (unknown_commands, "docs/words.md", "--dry-run", "--wet-run"),
    (unknown_commands, "docs/words.md", "`run create`", "`run plan`"),
    (swift_versions_differ, "scripts/install-packages", "6.3", "6"),
    (swift_versions_differ, "docker/Dockerfile", "6.3", "6.4"),
    (alerts_without_heading, "docker/alerts.yml", "Two words", "Three words"),
    (alerts_without_heading, "docker/alerts.yml", "docs/words.md, 'Two", "docs/word.md, 'Two"),
]
# A second decision with a gap cannot be made by replacing a text.
ADDED = [(decisions_out_of_form, "docs/decisions/0003-third.md", SOUND["docs/decisions/0001-first.md"].replace("# 1.", "# 3.")),
         (decisions_out_of_form, "docs/decisions/second.md", "# Second\n"),
         (imports_unlisted, "Sources/CCurl/Second.swift", "import Foundation\npackage import A\n"),
         (imports_unlisted, "Tests/ATests/ATests.swift", "@testable import A\nimport T\n"),
         (imports_unlisted, "Tests/T/T.swift", "import Log\n")]


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def self_test():
    failures = []

    def expect(rule, what, files):
        with tempfile.TemporaryDirectory(prefix="martlet-rules-") as directory:
            write(Path(directory), files)
            finding = [other for other in RULES if other(Path(directory))]
            if finding != ([rule] if rule else []):
                failures.append(f"{what}: found by {[other.__name__ for other in finding]}, should be by {rule.__name__ if rule else 'none'}")

    expect(None, "the sound repository", SOUND)
    for rule, name, old, new in BROKEN:
        assert old in SOUND[name], (name, old)
        expect(rule, f"{name} with {new[:60]!r} for {old[:60]!r}", SOUND | {name: SOUND[name].replace(old, new, 1)})
    for rule, name, text in ADDED:
        expect(rule, f"with {name}", SOUND | {name: text})
    untested = [rule.__name__ for rule in RULES if rule not in [case[0] for case in [*BROKEN, *ADDED]]]
    failures += [f"no bad document for {name}" for name in untested]
    with tempfile.TemporaryDirectory(prefix="martlet-rules-") as directory:
        write(Path(directory), SOUND | {"Package.swift": SOUND["Package.swift"].replace('"A", dependencies', '"New", dependencies')})
        write_modules(Path(directory))
        if {finding.wrong for finding in modules_differ(Path(directory))} != {"New has no purpose"}:
            failures.append("--write-modules does not write what the rule asks for")
    for failure in failures:
        print(failure)
    print(f"{'failed' if failures else 'passed'}: {len(BROKEN) + len(ADDED)} bad documents, {len(RULES)} rules")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:] == ["--write-modules"]:
        return write_modules(ROOT)
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 64
    findings = [finding for rule in RULES for finding in rule(ROOT)]
    for finding in findings:
        print(finding)
    if findings:
        print(f"failed: {len(findings)} findings", file=sys.stderr)
        return 1
    print(f"passed: {len(RULES)} rules for {len(linked_documents(ROOT))} documents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
