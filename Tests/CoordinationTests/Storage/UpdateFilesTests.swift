import Foundation
import TestSupport
import Testing
import WireFormat

@testable import Coordination

struct UpdateFilesTests {
    private let directory: TemporaryDirectory
    private let files: UpdateFiles

    init() throws {
        directory = try TemporaryDirectory()
        files = UpdateFiles(blobs: try DirectoryBlobStore(dataDirectory: directory.path))
    }

    private func make(_ name: String) throws {
        try Data([1]).write(to: URL(fileURLWithPath: files.blobs.spoolPath(name)))
    }

    private var names: [String] { files.blobs.spoolNames().sorted() }

    @Test("An accepted update is there with its receipt, and one that was not counted is where it came from.")
    func acceptance() throws {
        try make("upload.part")
        let path = files.blobs.spoolPath("upload.part")
        let receipt = SpooledReceipt(sha256: "s", byteCount: 1, exampleCount: 3)
        try files.accept(path, of: "a", receipt: receipt)
        #expect(names.count == 2 && !names.contains("upload.part"))
        var record = AssignmentRecord(
            id: "a",
            of: RoundRecord(
                runId: "r",
                number: 1,
                attempt: 1,
                opening: .reporting,
                at: SampleRun.start,
                deadline: SampleRun.start
            ),
            client: "c",
            at: SampleRun.start,
            deadline: SampleRun.start
        )
        #expect(try files.receipt(of: record)?.exampleCount == 3)
        (record.updateSha256, record.updateBytes) = ("row", 9)
        #expect(try files.receipt(of: record)?.sha256 == "row", "what the row says comes first")
        files.giveBack(path, of: "a", hasReceipt: true)
        #expect(names == ["upload.part"])
        #expect(refusalCode { try files.accept("/nowhere", of: "b", receipt: receipt) } == "storage_failed")
        #expect(names == ["upload.part"])
    }

    @Test("With privacy everything that is known of an attempt's updates goes, without it only what was accepted.")
    func discarding() throws {
        for assignment in ["a", "b"] {
            for suffix in [".update", ".partial", ".judged"] { try make(assignment + suffix) }
        }
        files.discard(accepted: ["a"], ended: ["a", "b"], isPrivate: false)
        #expect(names == ["a.judged", "a.partial", "b.judged", "b.partial", "b.update"])
        files.discard(accepted: ["a"], ended: ["a", "b"], isPrivate: true)
        #expect(names.isEmpty)
    }

    @Test("A start gives interrupted uploads their names back, and parts that nobody will finish go.")
    func recovery() throws {
        try make("live.judged")
        try make("over.judged")
        try make("over2.partial")
        try files.recover { $0 == "live" }
        #expect(names == ["live.partial"])
        try files.sweep { _ in false }
        #expect(names.isEmpty)
    }
}
