import ArgumentParser
import Coordination
import Foundation
import LocalTraining
import WireFormat

/// Everything that a start checks, explained.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Check a data directory, and say what is wrong and what to do.",
        discussion: "Changes nothing, and may run beside the server. Ends with 1 when an error was found."
    )

    @Option(help: "The server's data directory, or a backup.") var dataDir: String
    @Option(help: "The ledger's second record, where ledger_head puts it elsewhere.") var ledgerHead: String?
    @Option(help: "The server's limits.model_bytes, such as 4GiB, to hold its open runs against.")
    var modelBytes: String?
    @Flag(help: "Hash every model file too.") var deep = false
    @Flag(help: "One JSON object a line.") var json = false

    func run() throws {
        let directory = DataDirectory(path: dataDir, ledgerHead: ledgerHead)
        if !directory.mayHaveLostDatabase {
            try directory.requireDatabase(of: "a server's data directory, or a backup")
        }
        let limit = modelBytes.flatMap { SettingDefinition.byteCount($0) }
        guard modelBytes == nil || limit != nil else {
            throw ValidationError("--model-bytes takes a number of bytes, plain or as 512MiB or 4GiB")
        }
        let findings =
            directory.findings(isDeep: deep, modelByteLimit: limit)
            + [Finding(BLASCore.fit == .fits ? .ok : .notice, "blas_core", BLASCore.sentence)]
        for finding in findings {
            if json {
                Terminal.document(String(decoding: try WireCoding.encode(finding), as: UTF8.self))
            } else {
                print(finding.severity.rawValue.padding(toLength: 9, withPad: " ", startingAt: 0) + finding.message)
                if let remedy = finding.remedy { print(String(repeating: " ", count: 9) + "→ " + remedy) }
            }
        }
        if !json && DirectoryLock.isHeld(dataDir) { print("notice   a server is using the directory now") }
        if findings.contains(where: { $0.severity == .error }) { throw ExitCode(1) }
    }
}
