import ArgumentParser
import DifferentialPrivacy
import Foundation

struct PrivacyCheckVectors: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-vectors",
        abstract: "Compute reference cases of schema fl-privacy-vectors/1; exit 1 when any is outside its tolerance."
    )
    @Argument(help: "Vector files.") var files: [String]

    func run() throws {
        var isGood = true
        for file in files {
            guard let data = FileManager.default.contents(atPath: file) else { throw Failure("cannot read \(file)") }
            let outcomes: [ReferenceVectors.Outcome]
            do {
                outcomes = try ReferenceVectors.evaluate(data)
            } catch {
                throw Failure("\(file) \(error)")
            }
            for outcome in outcomes {
                print(outcome.line)
                if outcome.status == .fail { isGood = false }
            }
        }
        guard isGood else { throw ExitCode(1) }
    }
}
