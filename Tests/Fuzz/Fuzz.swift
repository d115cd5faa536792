import ArgumentParser
import Foundation
import FuzzTargets

#if canImport(Glibc)
import Glibc
#endif

/// The number of the case that runs now, for the line that a trap leaves.
nonisolated(unsafe) private var currentCase = 0

/// The case that took longest so far, by the time of the processor: other processes do not count.
private struct SlowestCase {
    private var number = 0
    private var start = clock()
    private(set) var found = (number: 0, seconds: 0.0)

    mutating func begin(_ next: Int) {
        end()
        (number, start) = (next, clock())
    }

    mutating func end() {
        let seconds = Double(clock() - start) / Double(CLOCKS_PER_SEC)
        if seconds > found.seconds { found = (number, seconds) }
    }
}

/// Says which case a trap came from, and lets the process die of it.
private func reportCase(_ number: Int32) {
    var line: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
    withUnsafeMutableBytes(of: &line) { line in
        // No allocation: the handler may interrupt one.
        var end = line.count - 1
        line[end] = 10
        var rest = currentCase
        repeat {
            end -= 1
            line[end] = UInt8(48 + rest % 10)
            rest /= 10
        } while rest > 0
        _ = write(2, "the process dies in case ", 25)
        _ = write(2, line.baseAddress.map { $0 + end }, line.count - end)
    }
    signal(number, SIG_DFL)
    raise(number)
}

/// `swift run -c release Fuzz TARGET --cases N`: tries a reader with made-up input; the same seed gives the same cases.
@main
struct Fuzz: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Fuzz",
        abstract: "Try the readers of what peers send with made-up input.",
        discussion:
            "Targets: \(FuzzRunner.targets.map { $0.name }.joined(separator: ", ")). One JSON line for each; a finding "
            + "names its case, and --first N --cases 1 repeats it."
    )

    @Argument(help: "Targets; all where none is named.") var targets: [String] = []
    @Option(help: "How many cases each.") var cases = 100_000
    @Option(help: "The number of the first case.") var first = 0
    @Option(help: "Chooses the cases.") var seed: UInt64 = 1

    func run() async throws {
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE] { signal(number, reportCase) }
        let names = targets.isEmpty ? FuzzRunner.targets.map { $0.name } : targets
        for name in names {
            guard let target = FuzzRunner.targets.first(where: { $0.name == name }) else {
                throw ValidationError("there is no target '\(name)'")
            }
            let start = ContinuousClock.now
            var slowest = SlowestCase()
            do {
                let report = try await FuzzRunner.run(target, cases: first..<(first + cases), seed: seed) {
                    currentCase = $0
                    slowest.begin($0)
                }
                slowest.end()
                let seconds = (ContinuousClock.now - start) / .seconds(1)
                let rate = Int(Double(report.cases) / max(seconds, 1e-9))
                print(
                    "{\"target\":\"\(name)\",\"seed\":\(seed),\"first\":\(first),\"cases\":\(report.cases),"
                        + "\"taken\":\(report.taken),\"messages\":\(report.messages),\"seconds\":\(Int(seconds)),\"cases_per_second\":\(rate),"
                        + "\"slowest_case\":\(slowest.found.number),\"slowest_cpu_s\":\(slowest.found.seconds)}"
                )
                fflush(nil)
            } catch let finding as FuzzFinding {
                FileHandle.standardError.write(Data((finding.description + "\n").utf8))
                throw ExitCode.failure
            }
        }
    }
}
