import Foundation
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// One run of an external command: clean environment, closed input, a process group of its own, and an end.
struct TrainerProcess {
    /// How it ended.
    enum Ending: Equatable {
        case exited(Int32)
        case killed(signal: Int32)
    }

    struct Result {
        var ending: Ending
        /// It was asked to stop: by the deadline, or because the client stops.
        var wasStopped: Bool
        var seconds: Double
    }

    /// Process groups that run now, so that a client that is stopped leaves none behind.
    private static let running = Mutex<Set<pid_t>>([])
    private static let stopping = Atomic<Bool>(false)

    /// Asks every running trainer to stop; they are killed after their grace period.
    static func stopAll() {
        stopping.store(true, ordering: .relaxed)
        for group in running.withLock({ $0 }) { kill(-group, SIGTERM) }
    }

    static var isStopping: Bool { stopping.load(ordering: .relaxed) }

    var command: String
    var directory: String
    var environment: [String: String]
    /// When it is asked to stop.
    var deadline: ContinuousClock.Instant
    /// From SIGTERM to SIGKILL.
    var gracePeriod: Double
    /// Standard error goes to the end of this file.
    var logPath: String
    /// Whether its work is no longer wanted; asked some twenty times a second.
    var isCancelled: @Sendable () -> Bool = { false }

    /// Runs the command to its end; blocks, so it is for the arithmetic queue and not for actors.
    ///
    /// - Parameter line: Receives standard output line by line, each of at most 64 KiB, and may ask it to stop.
    /// - Returns: How it ended.
    /// - Throws: ``ExternalTrainerError`` with rule `start`.
    func run(line: (String) -> Bool) throws -> Result {
        var pipes: [Int32] = [0, 0]
        guard pipe(&pipes) == 0 else { throw failure("cannot make a pipe", errno) }
        let (reading, writing) = (pipes[0], pipes[1])
        for end in pipes { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        defer { close(reading) }
        let process: pid_t
        do {
            defer { close(writing) }
            process = try spawn(output: writing)
        }
        _ = Self.running.withLock { $0.insert(process) }
        defer {
            // Whatever it started and left behind goes with it.
            kill(-process, SIGKILL)
            _ = Self.running.withLock { $0.remove(process) }
        }
        return follow(process, reading, line)
    }

    private func follow(_ process: pid_t, _ output: Int32, _ line: (String) -> Bool) -> Result {
        let start = ContinuousClock.now
        _ = fcntl(output, F_SETFL, O_NONBLOCK)
        var lines = LineBuffer()
        var isOpen = true
        var killAt: ContinuousClock.Instant?
        var wasKilled = false
        while true {
            if isOpen {
                var descriptor = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
                poll(&descriptor, 1, 50)
                isOpen = lines.read(from: output)
                for text in lines.take() where line(text) && killAt == nil {
                    kill(-process, SIGTERM)
                    killAt = .now + .seconds(gracePeriod)
                }
            } else {
                usleep(20_000)
            }
            var status: Int32 = 0
            let ended = waitpid(process, &status, WNOHANG)
            if ended == process || (ended < 0 && errno != EINTR) {
                _ = lines.read(from: output)
                for text in lines.take(all: true) { _ = line(text) }
                let signal = status & 0x7F
                return Result(
                    ending: signal == 0 ? .exited((status >> 8) & 0xFF) : .killed(signal: signal),
                    wasStopped: killAt != nil,
                    seconds: (ContinuousClock.now - start) / .seconds(1)
                )
            }
            if killAt == nil && (ContinuousClock.now >= deadline || Self.isStopping || isCancelled()) {
                kill(-process, SIGTERM)
                killAt = .now + .seconds(gracePeriod)
            }
            if let time = killAt, !wasKilled, ContinuousClock.now >= time {
                kill(-process, SIGKILL)
                wasKilled = true
            }
        }
    }

    private func spawn(output: Int32) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_addopen(&actions, 2, logPath, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        // The program ignores SIGPIPE, SIGTERM and SIGINT; its children must not.
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes,
            Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF)
        )
        // The shell outlives SIGTERM, so that its exit code is the command's; the command itself gets the signal as usual.
        let words = ["/bin/sh", "-c", "trap : TERM; cd -- \"$1\" && eval \"$2\"", "trainer", directory, command]
        let arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        let variables: [UnsafeMutablePointer<CChar>?] =
            environment.sorted { $0.key < $1.key }.map { strdup($0.key + "=" + $0.value) } + [nil]
        defer { for text in arguments + variables { free(text) } }
        var process: pid_t = 0
        let code = posix_spawn(&process, "/bin/sh", &actions, &attributes, arguments, variables)
        guard code == 0 else { throw failure("cannot start /bin/sh in \(directory)", code) }
        return process
    }

    private func failure(_ what: String, _ code: Int32) -> ExternalTrainerError {
        ExternalTrainerError(.start, "\(what): \(String(cString: strerror(code)))")
    }
}

/// Cuts bytes into lines; a line that never ends is cut at 64 KiB.
private struct LineBuffer {
    private var bytes: [UInt8] = []
    private static let limit = 64 << 10

    /// Reads what there is.
    ///
    /// - Returns: Whether more may come.
    mutating func read(from descriptor: Int32) -> Bool {
        var block = [UInt8](repeating: 0, count: 16 << 10)
        // At most a megabyte at a time, so that a trainer that floods its output is still watched.
        for _ in 0..<64 {
            let count = Glibc.read(descriptor, &block, block.count)
            guard count > 0 else {
                return count < 0 && (errno == EAGAIN || errno == EINTR)
            }
            bytes += block[0..<count]
        }
        return true
    }

    mutating func take(all: Bool = false) -> [String] {
        var lines: [String] = []
        var start = 0
        for index in bytes.indices where bytes[index] == 10 || index - start >= Self.limit {
            lines.append(String(decoding: bytes[start..<index], as: UTF8.self))
            start = bytes[index] == 10 ? index + 1 : index
        }
        bytes.removeFirst(start)
        if all && !bytes.isEmpty {
            lines.append(String(decoding: bytes, as: UTF8.self))
            bytes = []
        }
        return lines
    }
}
