import Foundation

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

    enum Style: String {
        case bold = "1"
        case quiet = "2"
        case red = "31"
        case green = "32"
        case yellow = "33"
        case blue = "34"
        case magenta = "35"
    }

    func styled(_ text: String, _ style: Style) -> String {
        hasColors ? "\u{1B}[\(style.rawValue)m\(text)\u{1B}[0m" : text
    }

    /// A run's or a round's state in its colour.
    func state(_ state: String) -> String {
        switch state {
        case "running", "committed", "completed": styled(state, .green)
        case "paused", "abandoned", "reporting", "selecting", "aggregating": styled(state, .yellow)
        case "failed", "cancelled": styled(state, .red)
        default: state
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

    /// Replaces control characters, so that a name from elsewhere cannot move the cursor.
    static func printable(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 32 || $0.value == 127 ? "\u{FFFD}" : $0 }))
    }
}
