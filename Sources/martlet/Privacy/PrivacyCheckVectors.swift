import ArgumentParser
import Foundation
import PrivacyVectors

struct PrivacyCheckVectors: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-vectors",
        abstract: "Compute reference cases of schema fl-privacy-vectors/1; exit 1 when any is outside its tolerance."
    )
    @Argument(help: "Vector files.") var files: [String]

    func run() throws {
        var isGood = true
        for file in files {
            // One file that cannot be judged does not keep the others from being judged.
            do {
                guard let data = FileManager.default.contents(atPath: file) else { throw Failure("cannot be read") }
                for outcome in try ReferenceVectors.evaluate(data) {
                    print(outcome.line)
                    if outcome.status == .fail { isGood = false }
                }
            } catch {
                printError("Error: \(file) \(error)")
                isGood = false
            }
        }
        guard isGood else { throw ExitCode(1) }
    }
}
