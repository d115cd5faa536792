import ArgumentParser
import Foundation
import WireFormat

extension RunCommand {
    struct Watch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Follow a run to its end.",
            discussion: """
                On a terminal the picture is drawn anew; through a pipe there is a line for each change. Ends with status 0 \
                when the run is completed or cancelled, 2 when it failed. A server that restarts is waited for.

                    martlet run watch run_7f3a
                    martlet run watch run_7f3a --json | jq .committed_rounds
                """
        )
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        @Option(help: "Give up after so many seconds without an answer.") var patience = 300.0

        func run() async throws {
            let terminal = Terminal.standardOutput
            var screen = WatchScreen(terminal: terminal)
            defer { screen.finish() }
            var last = ""
            var isSilent = false
            var lastAnswer: ContinuousClock.Instant?
            var known: RunCurves?
            while true {
                let curves: RunCurves
                do {
                    curves = try await RunCurves.read(run, access, knowing: known)
                    known = curves
                    lastAnswer = .now
                } catch let failure as Failure where failure.isConnectionProblem {
                    // A server that has never answered is more likely elsewhere than away.
                    guard let lastAnswer else { throw failure }
                    let silence = (ContinuousClock.now - lastAnswer).seconds
                    guard silence < patience else { throw failure }
                    let line = "the server does not answer, for \(Int(silence)) s; trying again"
                    if terminal.isInteractive && !access.json {
                        screen.draw([line])
                    } else if !isSilent && !access.json {
                        print("the server does not answer; trying again")
                        fflush(nil)
                    }
                    (last, isSilent) = ("", true)
                    try await Task.sleep(for: .seconds(1))
                    continue
                }
                let line = WatchScreen.line(curves)
                let change = WatchScreen.withoutSeconds(line)
                if access.json {
                    if change != last { try access.show(WireCoding.encode(curves.run)) }
                } else if terminal.isInteractive {
                    screen.draw(screen.picture(curves))
                } else if change != last {
                    print(line)
                }
                fflush(nil)
                (last, isSilent) = (change, false)
                if curves.run.state == .completed || curves.run.state == .cancelled { return }
                if curves.run.state == .failed { throw ExitCode(2) }
                try await Task.sleep(for: .milliseconds(500))
            }
        }
    }
}

/// The picture that `run watch` draws, and its one-line form.
struct WatchScreen {
    let terminal: Terminal
    private var drawn = 0

    init(terminal: Terminal) {
        self.terminal = terminal
        if terminal.isInteractive { Terminal.control("\u{1B}[?25l") }
    }

    /// Draws over what was drawn before.
    mutating func draw(_ lines: [String]) {
        if drawn > 0 { Terminal.control("\u{1B}[\(drawn)F") }
        for line in lines {
            Terminal.control("\u{1B}[K")
            print(line)
        }
        Terminal.control("\u{1B}[J")
        drawn = lines.count
    }

    func finish() {
        if terminal.isInteractive { Terminal.control("\u{1B}[?25h") }
        fflush(nil)
    }

    /// One line that says where a run stands.
    static func line(_ curves: RunCurves) -> String {
        let run = curves.run
        var text = "\(run.state): \(run.committedRounds)/\(run.specification.rounds) rounds"
        if let curve = curves.curve(RunCurves.accuracyNames), let last = curve.points.last {
            text += ", accuracy \(three(last.value))\(curve.note)"
        }
        if let epsilon = run.epsilon { text += ", epsilon \(Readable.rounded(epsilon, 2))" }
        return Terminal.printable(text + "; waits for \(run.waitingFor)")
    }

    /// The line without its seconds, which pass and are no change.
    static func withoutSeconds(_ line: String) -> String {
        line.replacing(/[0-9]+ s\b/, with: "s")
    }

    /// Title, progress, curves, the open round.
    func picture(_ curves: RunCurves) -> [String] {
        let run = curves.run
        let width = max(20, min(terminal.width, 100))
        let total = max(1, run.specification.rounds)
        let progress = "\(run.committedRounds)/\(total) rounds"
        let left = remaining(curves).map { ", about \(Readable.seconds($0)) left" } ?? ""
        var lines = [
            "\(terminal.styled(Terminal.printable(run.name), .bold))  \(Terminal.printable(run.id))  \(terminal.state(run.state))",
            TextChart.bar(Double(run.committedRounds) / Double(total), width: min(40, width - 34))
                + " \(progress)\(left)",
        ]
        for (title, names, style) in [
            ("accuracy", RunCurves.accuracyNames, Terminal.Style.green), ("loss", RunCurves.lossNames, .yellow),
        ] {
            guard let curve = curves.curve(names), let first = curve.points.first, let last = curve.points.last else {
                continue
            }
            let line = TextChart.sparkline(curve.points.map(\.value), width: min(40, width - 34))
            let values = "\(three(first.value)) → \(three(last.value))\(curve.note)"
            lines.append("\(padded(title)) \(terminal.styled(line, style)) \(values)")
        }
        let costs = curves.committed.compactMap(\.epsilon)
        if let last = costs.last {
            let line = TextChart.sparkline(costs, width: min(40, width - 34))
            lines.append("\(padded("epsilon")) \(terminal.styled(line, .magenta)) \(Readable.rounded(last, 3))")
        }
        if let round = curves.rounds.last, run.state.isOpen {
            let attempt = round.attempt > 1 ? ", attempt \(round.attempt)" : ""
            lines.append("")
            lines.append("round \(round.number)\(attempt): \(terminal.state(round.state))")
            if round.isSecret {
                lines.append("how many were drawn is secret")
            } else {
                lines += self.progress(of: round)
            }
        }
        lines.append("waits for \(Terminal.printable(run.waitingFor))")
        if let reason = run.reason { lines.append("reason: \(Terminal.printable(reason))") }
        return lines.map { Terminal.columns($0) <= terminal.width ? $0 : String($0.prefix(terminal.width)) }
    }

    /// How far a round is, whose counts are no secret.
    private func progress(of round: RoundView) -> [String] {
        var lines = [
            TextChart.bar(Double(round.accepted) / Double(max(1, round.goal)), width: min(40, terminal.width - 34))
                + " \(round.accepted)/\(round.goal) updates"
        ]
        let bad = [(round.rejected, "rejected"), (round.failed, "failed"), (round.expired, "expired")].filter {
            $0.0 > 0
        }
        if !bad.isEmpty { lines.append(bad.map { "\($0.0) \($0.1)" }.joined(separator: ", ")) }
        return lines
    }

    private func padded(_ title: String) -> String { title + String(repeating: " ", count: max(0, 8 - title.count)) }

    /// What the rounds that are left may take, by the median of the last ten.
    private func remaining(_ curves: RunCurves) -> Double? {
        guard curves.run.state == .running else { return nil }
        let seconds = curves.committed.suffix(10).map(\.seconds).sorted()
        guard !seconds.isEmpty else { return nil }
        return seconds[seconds.count / 2] * Double(curves.run.specification.rounds - curves.run.committedRounds)
    }

    private static func three(_ value: Double) -> String { Readable.rounded(value, 3) }
    private func three(_ value: Double) -> String { Self.three(value) }
}
