import CLibrary
import Foundation
import MartletTransport

/// The directory in which a trainer's commands run, one at a time: they share the state that is kept between rounds.
///
/// Held by the kernel's lock on `lock`, which ends with the process, however it ends. Whoever holds it knows that every assignment
/// that lies there was left by a process that was killed.
final class TrainerWork: Sendable {
    private let descriptor: Int32

    private init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    private static let prefix = "assignment-"

    /// The directory of a new assignment.
    static func newAssignment(in directory: String) -> String { directory + "/" + prefix + UUID().uuidString }

    /// Takes the directory, if it is free.
    ///
    /// - Returns: `nil` while another command runs in it.
    /// - Throws: `ClientError` of this device's files.
    static func take(_ directory: String) throws -> TrainerWork? {
        let path = directory + "/lock"
        let descriptor = PlainFile.open(path, O_RDWR | O_CREAT)
        guard descriptor >= 0 else { throw LocalFailure.error("write", path, errno) }
        let work = TrainerWork(descriptor: descriptor)
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            if errno == EINTR { continue }
            guard errno == EWOULDBLOCK else { throw LocalFailure.error("lock", path, errno) }
            return nil
        }
        clear(directory)
        return work
    }

    /// Ends what a process that was killed has left in a directory, unless a command runs there.
    ///
    /// - Throws: `ClientError` of this device's files.
    static func clearIfFree(_ directory: String) throws {
        // What a link leads to is not ours.
        var status = stat()
        guard lstat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR, !assignments(in: directory).isEmpty
        else { return }
        _ = try take(directory)
    }

    private static func assignments(in directory: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [])
            .filter { $0.hasPrefix(prefix) && UUID(uuidString: String($0.dropFirst(prefix.count))) != nil }
    }

    private static func clear(_ directory: String) {
        for name in assignments(in: directory) {
            Descendants.killAll(marked: TrainerTask.mark, endingIn: "/\(name)/\(TrainerTask.descriptionName)")
            TrainerTask.remove(directory + "/" + name)
        }
    }
}

/// What failed on this device before a trainer's data were opened, so that it says nothing about them: `disk_full` and the like.
struct SetupFailure: Error, CustomStringConvertible {
    let failure: ClientError

    var description: String { failure.description }

    /// Does what comes before the data; errors of this device's files are told from all others.
    static func catching<Result>(_ path: String, _ body: () throws -> Result) throws -> Result {
        do { return try body() } catch {
            guard let failure = LocalFailure.error(error, path) else { throw error }
            throw SetupFailure(failure: failure)
        }
    }
}
