import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// The preloaded library that makes calls fail (`faults.c`).
struct Faults: Sendable {
    /// What can fail, in the order of the library's numbers.
    enum Kind: Int32, CaseIterable {
        case write, sync, rename, open, link, read, status, unlink
        var name: String { "\(self)" }

        /// What a server's job tries.
        static let ofServers: [Self] = [.write, .sync, .rename, .open, .link, .read, .status, .unlink]
        /// What a device's job tries.
        static let ofDevices: [Self] = [.write, .sync, .rename, .open, .read, .status, .unlink]
    }

    /// The errors that disks and their file systems give.
    static let codes: [(name: String, code: Int32)] = [
        ("EIO", EIO), ("ENOSPC", ENOSPC), ("EDQUOT", EDQUOT), ("EROFS", EROFS),
    ]

    private typealias Arm = @convention(c) (UnsafePointer<CChar>, Int32, Int32, Int32, Int32) -> Void
    private typealias Disarm = @convention(c) () -> Int32
    private typealias Seen = @convention(c) (Int32) -> Int32
    private typealias Lost = @convention(c) (UnsafeMutablePointer<CChar>, Int32) -> Void

    private let arm: Arm
    private let disarm: Disarm
    private let seen: Seen
    private let lost: Lost

    /// Finds the library; `nil` where it is not preloaded.
    init?() {
        let everything = UnsafeMutableRawPointer(bitPattern: 0)
        guard let arm = dlsym(everything, "faults_arm"), let disarm = dlsym(everything, "faults_disarm"),
            let seen = dlsym(everything, "faults_seen"), let lost = dlsym(everything, "faults_lost")
        else { return nil }
        self.arm = unsafeBitCast(arm, to: Arm.self)
        self.disarm = unsafeBitCast(disarm, to: Disarm.self)
        self.seen = unsafeBitCast(seen, to: Seen.self)
        self.lost = unsafeBitCast(lost, to: Lost.self)
    }

    /// From now on calls are counted, and `calls` of them from the `number`-th of a kind on fail.
    func begin(_ directory: String, _ kind: Kind, number: Int, code: Int32, calls: Int) {
        arm(directory, kind.rawValue, Int32(number), code, Int32(calls))
    }

    /// Nothing fails any more.
    ///
    /// - Returns: How many calls have failed.
    func end() -> Int { Int(disarm()) }

    /// How many calls of a kind there were.
    func count(_ kind: Kind) -> Int { Int(seen(kind.rawValue)) }

    /// What a power cut would take now though the program relies on it, since a sync that followed a failed one was believed; `nil`
    /// where there is nothing.
    var lostAfterAll: String? {
        let text = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
            guard let first = buffer.baseAddress else { return "" }
            lost(first, 512)
            return String(cString: first)
        }
        return text.isEmpty ? nil : text
    }
}
