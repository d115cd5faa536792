import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Coordination

/// What every form of a blob store promises; the directory is the first one.
struct BlobStoreTests {
    private let directory: TemporaryDirectory
    private let blobs: any BlobStore

    init() throws {
        directory = try TemporaryDirectory()
        blobs = try DirectoryBlobStore(dataDirectory: directory.path)
    }

    private func spool(_ name: String, _ bytes: [UInt8]) throws -> (path: String, sha256: String) {
        let path = blobs.spoolPath(name)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return (path, Secrets.sha256(Data(bytes)))
    }

    private func content(_ sha256: String) -> [UInt8]? {
        FileManager.default.contents(atPath: blobs.path(sha256: sha256)).map { Array($0) }
    }

    @Test("Bytes are found by their hash, however they came.")
    func found() throws {
        #expect(try content(blobs.put(Data([1, 2]))) == [1, 2])
        let adopted = try spool("model.part", [3])
        try blobs.adopt(spoolFile: adopted.path, sha256: adopted.sha256)
        #expect(content(adopted.sha256) == [3] && blobs.spoolNames().isEmpty)
        let linked = try spool("a.result", [4])
        try blobs.link(spoolFile: linked.path, sha256: linked.sha256)
        #expect(content(linked.sha256) == [4] && blobs.spoolNames() == ["a.result"])
        // A publication that is tried again.
        try blobs.link(spoolFile: linked.path, sha256: linked.sha256)
        blobs.discard([linked.path])
        #expect(blobs.spoolNames().isEmpty && content(linked.sha256) == [4])
    }

    @Test("A damaged blob is replaced by the file that has its bytes.")
    func damaged() throws {
        let sha256 = try blobs.put(Data([5]))
        try Data([9]).write(to: URL(fileURLWithPath: blobs.path(sha256: sha256)))
        let whole = try spool("b.result", [5])
        try blobs.link(spoolFile: whole.path, sha256: sha256)
        #expect(content(sha256) == [5])
        try Data([9]).write(to: URL(fileURLWithPath: blobs.path(sha256: sha256)))
        #expect(try blobs.put(Data([5])) == sha256 && content(sha256) == [5])
    }

    /// What the disk does not let go: a directory where a file should be refuses to be unlinked, whoever asks.
    private func stuck(_ name: String) throws -> String {
        let path = blobs.spoolPath(name)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        return path
    }

    private func retry() -> [String] {
        let told = Mutex<[String]>([])
        blobs.retryRemovals { failure in told.withLock { $0.append(failure.sentence) } }
        _ = blobs.spoolNames()
        return told.withLock { $0 }
    }

    @Test(
        "A file that the disk does not let go is tried again and told of until it is gone.",
        arguments: [true, false]
    )
    func owedRemovals(isAtOnce: Bool) throws {
        let paths = try ["a.update", "b.update"].map(stuck)
        isAtOnce ? blobs.removeAtOnce(paths) : blobs.discard(paths)
        #expect(blobs.spoolNames().count == 2)
        #expect(retry().count == 1, "one sort of file")
        for path in paths {
            #expect(rmdir(path) == 0)
            try Data([1]).write(to: URL(fileURLWithPath: path))
        }
        #expect(retry().isEmpty && blobs.spoolNames().isEmpty)
    }

    @Test("A name that is wanted again is not taken by an earlier removal that failed.")
    func wantedAgain() throws {
        let path = try stuck("a.update")
        blobs.removeAtOnce([path])
        blobs.want([path])
        #expect(rmdir(path) == 0)
        try Data([1]).write(to: URL(fileURLWithPath: path))
        #expect(retry().isEmpty && blobs.spoolNames() == ["a.update"])
    }
}
