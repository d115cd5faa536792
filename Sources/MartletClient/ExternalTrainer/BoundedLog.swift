import CLibrary
import Foundation
import MartletTransport

/// What one run of a trainer writes to standard error, as a file of at most a megabyte: its beginning, and its last 64 KiB.
struct BoundedLog {
    private static let headLimit = (1 << 20) - (66 << 10)
    private static let tailLimit = 64 << 10

    private let file: Int32
    private var headCount = 0
    private var leftOut = 0
    private var tail: [UInt8] = []
    /// Whether more may come.
    private(set) var isOpen = true

    init(path: String) {
        file = PlainFile.open(path, O_WRONLY | O_CREAT | O_TRUNC)
    }

    /// Reads what there is, at most a megabyte at a time, so that a trainer that floods it is still watched.
    mutating func read(from descriptor: Int32) {
        var block = [UInt8](repeating: 0, count: 16 << 10)
        for _ in 0..<64 where isOpen {
            let count = CLibrary.read(descriptor, &block, block.count)
            guard count > 0 else {
                isOpen = count < 0 && (errno == EAGAIN || errno == EINTR)
                return
            }
            take(block[..<count])
        }
    }

    private mutating func take(_ bytes: ArraySlice<UInt8>) {
        let head = bytes.prefix(Self.headLimit - headCount)
        put(head)
        headCount += head.count
        tail += bytes.dropFirst(head.count)
        // Cut now and then, not at every block.
        if tail.count > 2 * Self.tailLimit {
            leftOut += tail.count - Self.tailLimit
            tail.removeFirst(tail.count - Self.tailLimit)
        }
    }

    /// Takes what is left in the pipe, writes the last bytes, and closes the file.
    mutating func finish(_ descriptor: Int32) {
        read(from: descriptor)
        if tail.count > Self.tailLimit {
            leftOut += tail.count - Self.tailLimit
            tail.removeFirst(tail.count - Self.tailLimit)
        }
        if leftOut > 0 { put(Array("\n[\(leftOut) bytes left out]\n".utf8)[...]) }
        put(tail[...])
        if file >= 0 { close(file) }
    }

    private func put(_ bytes: ArraySlice<UInt8>) {
        guard file >= 0 else { return }
        // A full disk costs the log, not the training.
        bytes.withUnsafeBytes { _ = write(file, $0.baseAddress, $0.count) }
    }
}

/// The logs of a client's trainer runs: a file each, the newest twenty kept.
struct TrainerLogs {
    static let countLimit = 20
    let directory: String

    /// The file for one run; older ones than the newest are removed.
    func path(run: String, round: Int, operation: String) throws -> String {
        let manager = FileManager.default
        try PlainFile.makeDirectory(directory)
        // Names sort by time.
        let time = Int(Date().timeIntervalSince1970 * 1000)
        let name = "\(time)-\(run.prefix(60))-\(operation)-\(round).log"
        let old = try manager.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(".log") }.sorted()
        for file in old.dropLast(Self.countLimit - 1) { try? manager.removeItem(atPath: directory + "/" + file) }
        return directory + "/" + name
    }
}
