import Foundation
import StrictJSON
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// What standard output can show: colours, its width, and whether lines may be drawn anew.
struct Terminal {
    /// Whether a person watches; otherwise a file or a program reads.
    let isInteractive: Bool
    let hasColors: Bool
    let width: Int
    let height: Int

    /// The terminal that the process writes to; `NO_COLOR` and `TERM=dumb` turn colours off, as do pipes.
    static var standardOutput: Terminal {
        let environment = ProcessInfo.processInfo.environment
        let interactive = isatty(STDOUT_FILENO) == 1 && environment["TERM"] != "dumb"
        var size = winsize()
        let known = ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        return Terminal(
            isInteractive: interactive,
            hasColors: interactive && (environment["NO_COLOR"] ?? "").isEmpty,
            width: known ? Int(size.ws_col) : environment["COLUMNS"].flatMap { Int($0) } ?? 80,
            height: known ? Int(size.ws_row) : 24
        )
    }

    enum Style: String, CaseIterable {
        case bold = "1"
        case quiet = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
        case blue = "34"
        case magenta = "35"
    }

    /// What shows lines and no colours, such as a file.
    static let plain = Terminal(isInteractive: false, hasColors: false, width: 80, height: 24)

    func styled(_ text: String, _ style: Style) -> String {
        hasColors ? "\u{1B}[\(style.rawValue)m\(text)\u{1B}[0m" : text
    }

    /// A run's state in its colour.
    func state(_ state: RunPhase) -> String {
        switch state {
        case .created: state.rawValue
        case .running, .completed: styled(state.rawValue, .green)
        case .paused: styled(state.rawValue, .yellow)
        case .failed, .cancelled: styled(state.rawValue, .red)
        }
    }

    /// A round's state in its colour.
    func state(_ state: RoundPhase) -> String {
        switch state {
        case .committed: styled(state.rawValue, .green)
        case .selecting, .reporting, .aggregating, .abandoned: styled(state.rawValue, .yellow)
        }
    }

    /// The columns that a text takes: escape sequences take none, East Asian characters two.
    static func columns(_ text: String) -> Int {
        var count = 0
        var isEscape = false
        for scalar in text.unicodeScalars {
            if scalar == "\u{1B}" {
                isEscape = true
            } else if isEscape {
                isEscape = scalar != "m"
            } else if scalar.properties.generalCategory != .nonspacingMark {
                count += (0x1100...0x115F).contains(scalar.value) || (0x2E80...0xFF60).contains(scalar.value) ? 2 : 1
            }
        }
        return count
    }

    /// Escapes what could move the cursor or turn the direction of writing: for every text that comes from elsewhere.
    static func printable(_ text: String) -> String { PrintableText.escaped(text) }

    /// The same for lines that this program has composed: their ends and tabs, and, where there are colours, its own styles stay.
    ///
    /// What a composing function forgot to make printable is caught here.
    func safe(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: PrintableText.isUnsafe) else { return text }
        var (result, rest) = ("", Substring(text))
        while let unsafe = rest.unicodeScalars.firstIndex(where: PrintableText.isUnsafe) {
            result += rest[..<unsafe]
            rest = rest[unsafe...]
            if let style = hasColors
                ? Self.styles.first(where: { rest.unicodeScalars.starts(with: $0.unicodeScalars) }) : nil
            {
                result += style
                rest = Substring(rest.unicodeScalars.dropFirst(style.unicodeScalars.count))
            } else {
                let scalar = rest.unicodeScalars.removeFirst()
                result += ["\n", "\t"].contains(scalar) ? String(scalar) : PrintableText.escaped(String(scalar))
            }
        }
        return result + rest
    }

    /// The same for a part of a line: in there, an end of a line would make another one of what follows.
    func safeCell(_ text: String) -> String {
        safe(text).replacing("\n", with: "\\u{A}").replacing("\t", with: "\\u{9}")
    }

    /// The sequences that ``styled(_:_:)`` writes.
    private static let styles = (["0"] + Style.allCases.map(\.rawValue)).map { "\u{1B}[\($0)m" }

    /// JSON text with what a terminal would act on written as `\uXXXX`, which means the same to a program; between its parts a
    /// carriage return means nothing, and is left out.
    static func json(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { PrintableText.isUnsafe($0) && $0 != "\n" && $0 != "\t" }) else {
            return text
        }
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            guard PrintableText.isUnsafe(scalar), !["\n", "\t"].contains(scalar) else {
                result.append(scalar)
                continue
            }
            guard scalar != "\r" else { continue }
            for unit in String(scalar).utf16 {
                let digits = String(unit, radix: 16)
                result.append(
                    contentsOf: ("\\u" + String(repeating: "0", count: 4 - digits.count) + digits).unicodeScalars
                )
            }
        }
        return String(result)
    }

    /// Sequences that act on the terminal: this program's own, with nothing of anybody else's in them.
    static func control(_ sequence: String) { Swift.print(sequence, terminator: "") }

    /// A document for programs, as it is but for what ``json(_:)`` writes otherwise.
    static func document(_ text: String, terminator: String = "\n") { Swift.print(json(text), terminator: terminator) }
}

/// The one way to standard output for lines: whatever is in them, nothing but colours acts on the terminal.
///
/// Stands in front of Swift's function in this module, so that no line can be printed past it by mistake.
func print(_ text: String, terminator: String = "\n") {
    Swift.print(Terminal.standardOutput.safe(text), terminator: terminator)
}

/// The one way to standard error, for lines without colours: nothing in them acts on the terminal.
///
/// One write, so that lines of several threads do not mix.
func printError(_ text: String) {
    let bytes = Array((Terminal.plain.safe(text) + "\n").utf8)
    _ = bytes.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
}
