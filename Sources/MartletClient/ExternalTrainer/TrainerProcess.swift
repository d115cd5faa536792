import CKernels
import CLibrary
import Foundation
import Synchronization

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

    static var isRunning: Bool { running.withLock { !$0.isEmpty } }

    static var isStopping: Bool { stopping.load(ordering: .relaxed) }

    var command: String
    var directory: String
    var environment: [String: String]
    /// When it is asked to stop.
    var deadline: ContinuousClock.Instant
    /// From SIGTERM to SIGKILL.
    var gracePeriod: Double
    /// Standard error goes to this file, a megabyte at most.
    var logPath: String
    /// Whether its work is no longer wanted; asked some twenty times a second.
    var isCancelled: @Sendable () -> Bool = { false }

    /// Runs the command to its end; blocks, so it is for the arithmetic queue and not for actors.
    ///
    /// - Parameter line: Receives standard output line by line, each of at most 64 KiB, and may ask it to stop.
    /// - Returns: How it ended.
    /// - Throws: ``ExternalTrainerError`` with rule `start`.
    func run(line: (String) -> Bool) throws -> Result {
        let output = try makePipe()
        defer { close(output.reading) }
        let errors: (reading: Int32, writing: Int32)
        do { errors = try makePipe() } catch {
            close(output.writing)
            throw error
        }
        defer { close(errors.reading) }
        let process: pid_t
        // Its writing end is here alone: when this process is killed, what watches the other end kills the command.
        let life: (reading: Int32, writing: Int32)
        do {
            defer {
                close(output.writing)
                close(errors.writing)
            }
            life = try makePipe()
            defer { close(life.reading) }
            do {
                process = try spawn(output: output.writing, errors: errors.writing, alive: life.reading)
            } catch {
                close(life.writing)
                throw error
            }
        }
        defer { close(life.writing) }
        _ = Self.running.withLock { $0.insert(process) }
        defer {
            // Whatever it started and left behind is gone by now, unless its shell was killed by somebody else.
            kill(-process, SIGKILL)
            Descendants.killAll(marked: TrainerTask.mark, as: environment[TrainerTask.mark])
            _ = Self.running.withLock { $0.remove(process) }
        }
        var log = BoundedLog(path: logPath)
        defer { log.finish(errors.reading) }
        return follow(process, output.reading, errors.reading, &log, line)
    }

    private func makePipe() throws -> (reading: Int32, writing: Int32) {
        var ends: [Int32] = [0, 0]
        let code = martlet_pipe(&ends)
        guard code == 0 else { throw failure("cannot make a pipe", code) }
        return (ends[0], ends[1])
    }

    private func follow(
        _ process: pid_t,
        _ output: Int32,
        _ errors: Int32,
        _ log: inout BoundedLog,
        _ line: (String) -> Bool
    ) -> Result {
        let start = ContinuousClock.now
        for end in [output, errors] { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
        var lines = LineBuffer()
        var isOpen = true
        var killAt: ContinuousClock.Instant?
        var wasKilled = false
        while true {
            log.read(from: errors)
            if isOpen {
                var descriptors = [
                    pollfd(fd: output, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: log.isOpen ? errors : -1, events: Int16(POLLIN), revents: 0),
                ]
                poll(&descriptors, 2, 50)
                isOpen = lines.read(from: output)
                for text in lines.take() where line(text) && killAt == nil {
                    kill(-process, SIGTERM)
                    killAt = .now + .seconds(gracePeriod)
                }
            } else {
                usleep(20_000)
            }
            var status: Int32 = 0
            let ended = waitpid(process, &status, WNOHANG | WUNTRACED)
            if ended == process, status & 0xFF == 0x7F {
                // The command has ended, and its shell waits until nothing is left of it.
                Descendants.killAll(below: process)
                kill(process, SIGCONT)
                continue
            }
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
                // The shell last: what it leaves would be somebody else's.
                kill(process, SIGSTOP)
                Descendants.killAll(below: process)
                kill(-process, SIGKILL)
                wasKilled = true
            }
        }
    }

    /// What the shell does.
    ///
    /// It outlives SIGTERM, so that its exit code is the command's, which gets the signal as usual. Where orphans come to it, it
    /// stops when the command has ended, until ``Descendants/killAll(below:)`` has seen to them. There a watcher, too, kills the
    /// process group when descriptor 3 ends, which is when the client is gone: nobody wants the work then.
    private static func script(waits: Bool) -> String {
        let body = "cd -- \"$1\" && (trap : TERM; eval \"$2\")"
        guard waits else { return "trap : TERM; " + body }
        return
            "trap : TERM; (trap '' TERM; while read -r line; do :; done; kill -KILL 0) <&3 >/dev/null 2>&1 & exec 3<&-; "
            + body + "; code=$?; kill -STOP $$; exit $code"
    }

    /// Starts a command as a client does, for tests: its output goes nowhere, and it ends when the other end of `alive` does.
    static func spawnWatched(_ command: String, in directory: String, alive: Int32) throws -> pid_t {
        let process = TrainerProcess(
            command: command,
            directory: directory,
            environment: ["PATH": "/usr/bin:/bin"],
            deadline: .now,
            gracePeriod: 0,
            logPath: ""
        )
        let nowhere = CLibrary.open("/dev/null", O_WRONLY | O_CLOEXEC)
        defer { close(nowhere) }
        return try process.spawn(output: nowhere, errors: nowhere, alive: alive)
    }

    private func spawn(output: Int32, errors: Int32, alive: Int32) throws -> pid_t {
        func words(waits: Bool) -> [String] {
            ["/bin/sh", "-c", Self.script(waits: waits), "trainer", directory, command]
        }
        let variables: [UnsafeMutablePointer<CChar>?] =
            environment.sorted { $0.key < $1.key }.map { strdup($0.key + "=" + $0.value) } + [nil]
        defer { for text in variables { free(text) } }
        var process: pid_t = 0
        // The reaper is the shell and not this process, which may be somebody's app with children of its own.
        var arguments: [UnsafeMutablePointer<CChar>?] = words(waits: true).map { strdup($0) } + [nil]
        defer { for text in arguments { free(text) } }
        var code = martlet_spawn_reaper(&process, arguments, variables, output, errors, alive)
        if code == ENOSYS {
            for text in arguments { free(text) }
            arguments = words(waits: false).map { strdup($0) } + [nil]
            code = spawnInGroup(&process, arguments, variables, output: output, errors: errors)
        }
        guard code == 0 else { throw failure("cannot start /bin/sh in \(directory)", code) }
        return process
    }

    /// Where the kernel gives no orphans: the process group is what ends with the command.
    private func spawnInGroup(
        _ process: inout pid_t,
        _ arguments: [UnsafeMutablePointer<CChar>?],
        _ variables: [UnsafeMutablePointer<CChar>?],
        output: Int32,
        errors: Int32
    ) -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, errors, 2)
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
        return posix_spawn(&process, "/bin/sh", &actions, &attributes, arguments, variables)
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
            let count = CLibrary.read(descriptor, &block, block.count)
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
