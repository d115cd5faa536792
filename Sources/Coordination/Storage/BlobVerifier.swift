import Crypto
import Dispatch
import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// Files named by their hash that are believed only after they were hashed once in this process, and as long as they stay as they were.
///
/// Whoever asks for the same file at the same time waits for one hashing, on a thread that serves nobody else. Each use asks for the
/// file's size and times, which changes by any program alter: one that changed is hashed again, whether it was whole or damaged. What
/// changes below the file system (a disk that returns other bytes) is found at the next start or by `martlet doctor --deep`.
package final class BlobVerifier: Sendable {
    /// What a file is for, in words for an operator.
    package typealias Owner = String

    package struct Damage: Sendable, Equatable {
        package var path: String
        package var owner: Owner
        package var isMissing: Bool
        fileprivate var stamp: Stamp?
        fileprivate var sha256: String

        /// The problem's code.
        package var code: String { isMissing ? "model_missing" : "model_damaged" }

        /// What is the matter and what to do, without a path.
        package var sentence: String {
            "\(owner) \(isMissing ? "is missing" : "is not what was written"): restore blobs/\(sha256.prefix(2))/\(sha256) "
                + "from a backup; its name is its SHA-256"
        }

        package var error: CoordinationError { CoordinationError(.unavailable, code, sentence) }
    }

    /// What changes when a file is replaced or written to.
    fileprivate struct Stamp: Equatable, Sendable {
        private struct Time: Equatable, Sendable {
            var seconds, nanoseconds: Int

            init(_ time: timespec) {
                (seconds, nanoseconds) = (time.tv_sec, time.tv_nsec)
            }
        }

        private var inode: UInt64
        private(set) var byteCount: Int
        private var contentsChanged: Time
        private var changed: Time
        private var nameCount: Int

        init?(_ path: String) {
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            inode = UInt64(status.st_ino)
            byteCount = Int(status.st_size)
            contentsChanged = Time(status.st_mtim)
            changed = Time(status.st_ctim)
            nameCount = Int(status.st_nlink)
        }

        /// Whether the contents are those that had the other stamp: a second name, as a backup gives, changes no byte.
        func hasContents(of other: Stamp) -> Bool {
            inode == other.inode && byteCount == other.byteCount && contentsChanged == other.contentsChanged
                && (changed == other.changed || nameCount != other.nameCount)
        }
    }

    private struct Hashing: Sendable {
        var path: String
        var sha256: String
        var owner: Owner
    }

    private struct State: Sendable {
        /// By path, what the file was like when it was hashed.
        var verified: [String: Stamp] = [:]
        var damages: [String: Damage] = [:]
        var waiting: [String: [@Sendable (Result<Void, CoordinationError>) -> Void]] = [:]
        /// Files that are to be hashed: those that open runs need go first.
        var needed: [Hashing] = []
        var others: [Hashing] = []

        mutating func next() -> Hashing? {
            if !needed.isEmpty { return needed.removeFirst() }
            return others.isEmpty ? nil : others.removeFirst()
        }

        /// Notes what the hash of a file came to.
        mutating func note(
            _ path: String,
            _ result: Result<Void, CoordinationError>,
            _ stamp: Stamp?,
            _ damage: Damage?
        ) {
            switch result {
            case .success:
                verified[path] = stamp
                damages[path] = nil
            case .failure:
                verified[path] = nil
                if let damage, damages.count < BlobVerifier.damageLimit || damages[path] != nil {
                    damages[path] = damage
                }
            }
        }

        /// Whether a file was hashed, and is still as it was.
        mutating func isVerified(_ path: String, _ stamp: Stamp?) -> Bool {
            guard let known = verified[path] else { return false }
            guard let stamp, stamp.hasContents(of: known) else {
                verified[path] = nil
                return false
            }
            if stamp != known { verified[path] = stamp }
            return true
        }
    }

    /// Files that wait to be hashed for requests which no open run needs; further ones are told to come again, and wait for nothing.
    private static let otherLimit = 16
    /// Files of which it is remembered that they are missing or damaged.
    private static let damageLimit = 1000
    /// Files of so many bytes are hashed by callers that may not wait: in some ten milliseconds.
    private static let smallByteCount = 8 << 20

    private let state = Mutex(State())
    let queue = DispatchQueue(label: "martlet.verify", qos: .utility)

    package init() {}

    /// What is known to be missing or damaged, by path.
    package var damages: [Damage] {
        state.withLock { $0.damages.isEmpty ? [] : $0.damages.values.sorted { $0.path < $1.path } }
    }

    /// Whether a file was hashed in this process, and is still as it was.
    package func isVerified(_ path: String) -> Bool {
        let stamp = Stamp(path)
        return state.withLock { $0.isVerified(path, stamp) }
    }

    /// Whether any file is known to be missing or damaged.
    package var hasDamage: Bool { state.withLock { !$0.damages.isEmpty } }

    /// Files that wait to be hashed, in the order in which they will be.
    var order: [String] { state.withLock { ($0.needed + $0.others).map(\.path) } }

    /// Whether a file waits to be hashed, or is being hashed; asks no disk.
    func isWaiting(_ path: String) -> Bool { state.withLock { $0.waiting[path] != nil } }

    /// Whether any file waits to be hashed, or is being hashed.
    var isHashing: Bool { state.withLock { !$0.waiting.isEmpty } }

    /// Whether a file is known to be of no use; asks no disk.
    package func damage(_ path: String) -> Damage? { state.withLock { $0.damages[path] } }

    /// Notes that a file was written and hashed by this process.
    package func noteWritten(_ path: String) {
        let stamp = Stamp(path)
        state.withLock { state in
            state.verified[path] = stamp
            state.damages[path] = nil
        }
    }

    /// Looks whether a file is there and has its size, and reads nothing.
    package func checkPresence(_ path: String, sha256: String, byteCount: Int?, owner: Owner) {
        let stamp = Stamp(path)
        // A disk that does not answer has not lost it.
        guard stamp != nil || errno == ENOENT || errno == ENOTDIR else { return }
        guard let stamp, byteCount.map({ $0 == stamp.byteCount }) ?? true else {
            let damage = Damage(path: path, owner: owner, isMissing: stamp == nil, stamp: stamp, sha256: sha256)
            // A whole directory that is gone needs no list of all that was in it.
            return state.withLock { state in
                if state.damages.count < Self.damageLimit || state.damages[path] != nil { state.damages[path] = damage }
            }
        }
    }

    /// Notes that a file cannot be what was written, since it cannot be read as what it is.
    ///
    /// - Returns: The error for whoever needs it.
    func noteUnusable(_ path: String, sha256: String, owner: Owner) -> CoordinationError {
        let stamp = Stamp(path)
        let damage = Damage(path: path, owner: owner, isMissing: stamp == nil, stamp: stamp, sha256: sha256)
        state.withLock { state in
            state.verified[path] = nil
            if state.damages.count < Self.damageLimit || state.damages[path] != nil { state.damages[path] = damage }
        }
        return damage.error
    }

    /// Waits until a file has been hashed; for threads that may wait.
    ///
    /// - Throws: ``CoordinationError`` with code `model_missing`, `model_damaged`, or `storage_failed` where the disk fails.
    package func check(_ path: String, sha256: String, owner: Owner) throws(CoordinationError) {
        let result = Mutex<Result<Void, CoordinationError>?>(nil)
        let done = DispatchGroup()
        done.enter()
        begin(path, sha256: sha256, owner: owner) { found in
            result.withLock { $0 = found }
            done.leave()
        }
        done.wait()
        if case .failure(let error)? = result.withLock({ $0 }) { throw error }
    }

    /// Looks whether a file has been hashed, for callers that may not wait: a small file is hashed here, a large one elsewhere.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - sha256: What it has to be.
    ///   - owner: Whose it is.
    ///   - isNeeded: Whether a run that is open waits for it: others wait behind those.
    /// - Throws: ``CoordinationError`` as ``check(_:sha256:owner:)``; `model_being_checked` while a large file is hashed.
    func checkSoon(
        _ path: String,
        sha256: String,
        owner: Owner,
        isNeeded: Bool
    ) throws(CoordinationError) {
        let stamp = Stamp(path)
        let known = state.withLock { state -> Result<Void, CoordinationError>? in
            if state.isVerified(path, stamp) { return .success(()) }
            if let stamp, let damage = state.damages[path], damage.stamp == stamp { return .failure(damage.error) }
            return nil
        }
        if let known { return try known.get() }
        guard stamp?.byteCount ?? 0 <= Self.smallByteCount else {
            begin(path, sha256: sha256, owner: owner, isNeeded: isNeeded) { _ in }
            // It may have ended by now.
            guard isVerified(path) else { throw Self.isBeingChecked(owner) }
            return
        }
        let (result, whole, damage) = judge(path, sha256, owner)
        state.withLock { $0.note(path, result, whole, damage) }
        try result.get()
    }

    /// Waits until a file has been hashed, at most for a time; for requests.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - sha256: What its hash has to be.
    ///   - owner: What it is for.
    ///   - isNeeded: Whether an open run needs it: then it is hashed before what callers ask for out of interest.
    ///   - patience: The time.
    /// - Throws: As ``check(_:sha256:owner:)``; `model_being_checked` when the time is over and the hashing goes on.
    package func verify(
        _ path: String,
        sha256: String,
        owner: Owner,
        isNeeded: Bool = true,
        patience: Duration = .seconds(2)
    ) async throws {
        guard !isVerified(path) else { return }
        let once = Mutex<CheckedContinuation<Void, any Error>?>(nil)
        try await withCheckedThrowingContinuation { continuation in
            once.withLock { $0 = continuation }
            let finish: @Sendable (Result<Void, CoordinationError>) -> Void = { result in
                let waiting = once.withLock { waiting in
                    defer { waiting = nil }
                    return waiting
                }
                waiting?.resume(with: result.mapError { $0 as any Error })
            }
            begin(path, sha256: sha256, owner: owner, isNeeded: isNeeded, finish)
            let seconds = Double(patience.components.seconds) + Double(patience.components.attoseconds) * 1e-18
            DispatchQueue.global(qos: .utility).asyncAfter(deadline: .now() + seconds) {
                finish(.failure(Self.isBeingChecked(owner)))
            }
        }
    }

    static func isBeingChecked(_ owner: Owner) -> CoordinationError {
        CoordinationError(
            .unavailable,
            "model_being_checked",
            "\(owner) is being read for the first time since the server started; ask again in a moment"
        )
    }

    /// Looks again at what was missing or damaged, where it has changed.
    func recheck() {
        for damage in damages where Stamp(damage.path) != damage.stamp {
            begin(damage.path, sha256: damage.sha256, owner: damage.owner) { _ in }
        }
    }

    // MARK: -

    private func begin(
        _ path: String,
        sha256: String,
        owner: Owner,
        isNeeded: Bool = true,
        _ finish: @escaping @Sendable (Result<Void, CoordinationError>) -> Void
    ) {
        enum Step {
            case answer(Result<Void, CoordinationError>)
            case wait, hash
        }
        let stamp = Stamp(path)
        let step = state.withLock { state -> Step in
            if state.isVerified(path, stamp) { return .answer(.success(())) }
            if let damage = state.damages[path], damage.stamp == stamp { return .answer(.failure(damage.error)) }
            let isFirst = state.waiting[path] == nil
            guard isNeeded || !isFirst || state.others.count < Self.otherLimit else {
                return .answer(.failure(Self.isBeingChecked(owner)))
            }
            state.waiting[path, default: []].append(finish)
            if isFirst {
                let task = Hashing(path: path, sha256: sha256, owner: owner)
                if isNeeded { state.needed.append(task) } else { state.others.append(task) }
            } else if isNeeded, let place = state.others.firstIndex(where: { $0.path == path }) {
                state.needed.append(state.others.remove(at: place))
            }
            return isFirst ? .hash : .wait
        }
        switch step {
        case .answer(let result): finish(result)
        case .wait: break
        case .hash:
            queue.async {
                guard let task = self.state.withLock({ $0.next() }) else { return }
                self.hash(task.path, task.sha256, task.owner)
            }
        }
    }

    private func hash(_ path: String, _ sha256: String, _ owner: Owner) {
        let (result, stamp, damage) = judge(path, sha256, owner)
        let finishes = state.withLock { state in
            state.note(path, result, stamp, damage)
            return state.waiting.removeValue(forKey: path) ?? []
        }
        for finish in finishes { finish(result) }
    }

    /// Hashes a file; one that is written to meanwhile is hashed again, and at the third time is of no use now.
    private func judge(
        _ path: String,
        _ sha256: String,
        _ owner: Owner
    ) -> (Result<Void, CoordinationError>, Stamp?, Damage?) {
        var damage: Damage?
        for _ in 0..<3 {
            let stamp = Stamp(path)
            do throws(CoordinationError) {
                let isWhole = try SpooledFile.measure(path).sha256 == sha256
                guard Stamp(path) == stamp else {
                    damage = nil
                    continue
                }
                if isWhole { return (.success(()), stamp, nil) }
                damage = Damage(path: path, owner: owner, isMissing: false, stamp: stamp, sha256: sha256)
            } catch {
                guard error.storage?.isMissing == true else { return (.failure(error), nil, nil) }
                damage = Damage(path: path, owner: owner, isMissing: true, stamp: nil, sha256: sha256)
            }
            break
        }
        let found = damage ?? Damage(path: path, owner: owner, isMissing: false, stamp: nil, sha256: sha256)
        return (.failure(found.error), nil, found)
    }
}
