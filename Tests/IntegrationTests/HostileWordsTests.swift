import Foundation
import TestSupport
import Testing

/// What other people's words do in a terminal: nothing, whichever command shows them.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct HostileWordsTests {
    /// Every command, with a server whose words act; the script lists the commands that the binary has.
    @Test(.slow) func noCommandPrintsWhatActs() throws { try PythonScript.expectSuccess("hostile_words.py", []) }

    /// There is one way to standard output and one to standard error, in `Terminal.swift`; a log has its handlers.
    @Test(.slow) func thereIsOneWayOut() throws {
        let root = URL(fileURLWithPath: ServerProcess.repository + "/Sources")
        let files = FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil)
        let names = (files?.compactMap { $0 as? URL } ?? []).filter { $0.pathExtension == "swift" }
        #expect(names.count > 100)
        let raw = try Regex(
            #"FileHandle\.standard(Output|Error)|\b(fputs|puts|fprintf|vprintf|debugPrint|dump|NSLog)\(|Swift\.print|StreamLogHandler|\bwrite\((1|2|STD)"#
        )
        let plain = try Regex(#"(^|[^.\w])print\("#)
        let measuring = ["/BenchmarkHarness/", "/Benchmarks/", "/Experiments/"]
        for file in names where !measuring.contains(where: file.path.contains) {
            let text = try String(contentsOf: file, encoding: .utf8)
            let name = file.lastPathComponent
            for line in text.split(separator: "\n") where !line.trimmingPrefix(while: \.isWhitespace).hasPrefix("//") {
                #expect(
                    ["Terminal.swift", "JSONLogHandler.swift"].contains(name) || line.firstMatch(of: raw) == nil,
                    "\(name): \(line)"
                )
                // In `martlet` that is the function of Terminal.swift; a library prints nothing.
                #expect(
                    file.path.contains("/Sources/martlet/") || line.firstMatch(of: plain) == nil,
                    "\(name): \(line)"
                )
            }
        }
    }
}
